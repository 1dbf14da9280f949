import { BundocError } from './error.ts';
import { elementTexts, memberTexts } from './json-slices.ts';

export { memberTexts };

/** What Bundoc knows of a document beside its content; also the first members of its text. */
export interface Metadata {
  readonly _id: string;
  readonly _collection: string;
  /** The revision; as `ifMatch` it makes a write happen only to this one. */
  readonly _rev: string;
  /** RFC 3339, UTC, milliseconds. */
  readonly _created: string;
  readonly _updated: string;
}

/** A document as it was read. */
export class Document<T> {
  /**
   * The exact JSON text: numbers, key order and white space as they were written, behind the metadata
   * members.
   */
  readonly text: string;
  #value: (T & Metadata) | undefined;

  constructor(text: string) {
    this.text = text;
  }

  /**
   * The parsed text, made when it is first asked for. `JSON.parse` rounds numbers that a double does not
   * hold: see {@link text}.
   */
  get value(): T & Metadata {
    this.#value ??= JSON.parse(this.text) as T & Metadata;
    return this.#value;
  }

  get id(): string {
    return this.value._id;
  }

  get rev(): string {
    return this.value._rev;
  }
}

/** JSON text that is to be sent as it is. */
export class JsonText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What is written: a value, or the exact text of one. Metadata members in it are not needed. */
export type Content<T> = T | JsonText;

/** @throws TypeError for what is no JSON object. */
export function textOf(content: unknown): string {
  if (content instanceof JsonText) return content.text;
  const text = JSON.stringify(content) as string | undefined;
  if (text === undefined || !text.startsWith('{')) throw new TypeError('a document must be a JSON object');
  return text;
}

/** The metadata members as Bundoc writes them in front of a document. */
const STORED_HEAD =
  /^\{"_id":"(?:[^"\\]|\\.)*","_collection":"[\w-]*","_rev":"\w*","_created":"[^"]*","_updated":"[^"]*"(,?)/;
const METADATA = ['_id', '_collection', '_rev', '_created', '_updated'] as const;

/**
 * A document without the metadata that Bundoc puts in front of it: its text as it was written, to the byte.
 */
export function withoutMetadata(text: string): string {
  const head = STORED_HEAD.exec(text);
  if (head !== null) return `{${text.slice(head[0].length)}`;
  const members = memberTexts(text);
  for (const name of METADATA) members.delete(name);
  return `{${[...members].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`;
}

/** A page of documents, as lists and queries give it. */
export interface DocumentPage<T> {
  readonly documents: readonly Document<T>[];
  /** Ids of documents of this page whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** Where the next page begins; undefined when this was the last. */
  readonly nextCursor: string | undefined;
  /** Documents of the collection, when they were asked to be counted. */
  readonly total: number | undefined;
  /** The whole answer, parsed but for its documents: `explain`, for one. */
  readonly rest: Readonly<Record<string, unknown>>;
}

export function pageOf<T>(text: string): DocumentPage<T> {
  const members = memberTexts(text);
  const documents = elementTexts(members.get('documents') ?? '[]').map((one) => new Document<T>(one));
  members.delete('documents');
  const rest: Record<string, unknown> = {};
  for (const [name, value] of members) rest[name] = JSON.parse(value);
  const { next_cursor: nextCursor, unreadable, total } = rest;
  return {
    documents,
    unreadable: Array.isArray(unreadable) ? (unreadable as string[]) : [],
    nextCursor: typeof nextCursor === 'string' ? nextCursor : undefined,
    total: typeof total === 'number' ? total : undefined,
    rest,
  };
}

/**
 * The documents of all pages.
 *
 * @throws BundocError `integrity_error` behind the documents of a page, some of which do not open, unless
 * `onUnreadable` takes their ids.
 */
export async function* documentsOf<T>(
  pageAt: (cursor: string | undefined) => Promise<Omit<DocumentPage<T>, 'rest' | 'total'>>,
  onUnreadable: ((ids: readonly string[]) => void) | undefined,
): AsyncGenerator<Document<T>, void, void> {
  let cursor: string | undefined;
  do {
    const page = await pageAt(cursor);
    yield* page.documents;
    tellUnreadable(page.unreadable, onUnreadable);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
}

/**
 * @throws BundocError `integrity_error` when there are ids of documents that do not open, and the caller
 * has no `onUnreadable`.
 */
export function tellUnreadable(
  ids: readonly string[],
  onUnreadable: ((ids: readonly string[]) => void) | undefined,
): void {
  if (ids.length === 0) return;
  if (onUnreadable === undefined)
    throw new BundocError('integrity_error', { detail: `these do not open: ${ids.join(', ')}` });
  onUnreadable(ids);
}
