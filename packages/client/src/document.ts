import { BundocError } from './error.ts';
import { elementTexts, memberTexts } from './json-slices.ts';
import { requirePageSize, shown } from './options.ts';

export { memberTexts };

/** The metadata that Bundoc keeps of a document. They are the first members of its text. */
export interface Metadata {
  readonly _id: string;
  readonly _collection: string;
  /** The revision. As `ifMatch` it limits a write to this revision. */
  readonly _rev: string;
  /** RFC 3339, UTC, milliseconds. */
  readonly _created: string;
  readonly _updated: string;
}

/**
 * A document as it was read.
 *
 * @example
 * ```ts
 * const note = await notes.get('first');
 * if (note !== undefined) console.log(note.id, note.rev, note.value.title, note.text);
 * ```
 */
export class Document<T> {
  /**
   * The exact JSON text. Behind the metadata, numbers, key order and white space are as they were written.
   */
  readonly text: string;
  #value: (T & Metadata) | undefined;

  constructor(text: string) {
    this.text = text;
  }

  /**
   * The parsed text, created on first use. `JSON.parse` rounds numbers that a double cannot represent: see
   * {@link text}.
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

/**
 * JSON text that is sent unchanged.
 *
 * @example
 * ```ts
 * import { JsonText } from '@bundoc/client';
 *
 * await project.collection('ledger').put('entry', new JsonText('{"amount": 12345678901234567890.10}'));
 * ```
 */
export class JsonText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** The content to write: a value, or its exact text. It need not have metadata members. */
export type Content<T> = T | JsonText;

/**
 * A value as JSON.
 *
 * @param isCondition refuses `undefined` and functions: a condition without them would match more.
 * @throws TypeError for NaN, Infinity, maps and sets, which would become `null` or `{}`; for a BigInt.
 */
export function jsonOf(place: string, value: unknown, isCondition = false): string {
  return JSON.stringify(value, (name, member: unknown) => {
    const isLost = isCondition && (member === undefined || typeof member === 'function');
    const what = lostInJson(member) ?? (isLost ? typeof member : undefined);
    if (what !== undefined)
      throw new TypeError(`${place}: ${name === '' ? '' : `${name}: `}JSON has no ${what}`);
    return member;
  });
}

function lostInJson(member: unknown): string | undefined {
  if (typeof member === 'number' && !Number.isFinite(member)) return String(member);
  if (typeof member === 'bigint') return 'BigInt; write its digits as a JsonText';
  return member instanceof Map || member instanceof Set ? member.constructor.name : undefined;
}

/** @throws TypeError unless it is a JSON object. */
export function textOf(content: unknown): string {
  if (content instanceof JsonText) return content.text;
  const text = jsonOf('document', content) as string | undefined;
  if (text === undefined || !text.startsWith('{')) throw new TypeError('a document must be a JSON object');
  return text;
}

/** The metadata members as Bundoc writes them before the content. */
const STORED_HEAD =
  /^\{"_id":"(?:[^"\\]|\\.)*","_collection":"[\w-]*","_rev":"\w*","_created":"[^"]*","_updated":"[^"]*"(,?)/;
const METADATA = ['_id', '_collection', '_rev', '_created', '_updated'] as const;

/** The text of a document without its metadata: exactly what was written. */
export function withoutMetadata(text: string): string {
  const head = STORED_HEAD.exec(text);
  if (head !== null) return `{${text.slice(head[0].length)}`;
  const members = memberTexts(text);
  for (const name of METADATA) members.delete(name);
  return `{${[...members].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`;
}

/** A page of documents, from a list or a query. */
export interface DocumentPage<T> {
  readonly documents: readonly Document<T>[];
  /** Ids of documents of this page whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** Where the next page begins; undefined when this was the last. */
  readonly nextCursor: string | undefined;
  /** Documents of the collection, if the request asked for `total`. */
  readonly total: number | undefined;
  /** The position of the last commit that the page shows. A later page with it shows the same state. */
  readonly asOf: number | undefined;
  /** All other members of the answer, parsed: `explain`, for example. */
  readonly rest: Readonly<Record<string, unknown>>;
}

export function pageOf<T>(text: string): DocumentPage<T> {
  const members = memberTexts(text);
  const documents = elementTexts(members.get('documents') ?? '[]').map((one) => new Document<T>(one));
  members.delete('documents');
  const rest: Record<string, unknown> = {};
  for (const [name, value] of members) rest[name] = JSON.parse(value);
  const { next_cursor: nextCursor, unreadable, total, as_of: asOf } = rest;
  return {
    documents,
    unreadable: Array.isArray(unreadable) ? (unreadable as string[]) : [],
    nextCursor: typeof nextCursor === 'string' ? nextCursor : undefined,
    total: typeof total === 'number' ? total : undefined,
    asOf: typeof asOf === 'number' ? asOf : undefined,
    rest,
  };
}

/** How much an iteration gives. */
export interface Extent {
  /** How many at most, in all pages together; no bound by default. */
  readonly limit?: number | undefined;
  /** How many per page, 1 to 1,000; 100 by default. */
  readonly pageSize?: number | undefined;
}

const PAGE_SIZE = 100;

/**
 * The items of all pages.
 *
 * @param pageAt reads the page at a cursor. A size is given when the default is not wanted.
 * @throws RangeError for a limit or page size that is none.
 */
export async function* itemsOf<P extends { readonly nextCursor: string | undefined }, I>(
  { limit = Number.POSITIVE_INFINITY, pageSize }: Extent,
  pageAt: (cursor: string | undefined, pageSize: number | undefined) => Promise<P>,
  items: (page: P) => readonly I[],
  afterPage: (page: P) => void = () => undefined,
): AsyncGenerator<I, void, void> {
  requirePageSize(pageSize);
  if (limit !== Number.POSITIVE_INFINITY && (!Number.isSafeInteger(limit) || limit < 0))
    throw new RangeError(`limit: ${shown(limit)} is not a whole number from 0`);
  let cursor: string | undefined;
  for (let left = limit; left > 0; ) {
    const page = await pageAt(cursor, left < (pageSize ?? PAGE_SIZE) ? left : pageSize);
    const found = items(page);
    yield* found;
    afterPage(page);
    left -= found.length;
    cursor = page.nextCursor;
    if (cursor === undefined) return;
  }
}

/**
 * The documents of all pages.
 *
 * @throws BundocError `integrity_error` after a page some of whose documents do not open, unless
 *   `onUnreadable` takes their ids.
 */
export function documentsOf<T>(
  extent: Extent,
  pageAt: (
    cursor: string | undefined,
    pageSize: number | undefined,
  ) => Promise<Omit<DocumentPage<T>, 'rest' | 'total'>>,
  onUnreadable: ((ids: readonly string[]) => void) | undefined,
): AsyncGenerator<Document<T>, void, void> {
  return itemsOf(
    extent,
    pageAt,
    ({ documents }) => documents,
    ({ unreadable }) => reportUnreadable(unreadable, onUnreadable),
  );
}

/**
 * @throws BundocError `integrity_error` when some documents do not open and the caller has no `onUnreadable`.
 */
export function reportUnreadable(
  ids: readonly string[],
  onUnreadable: ((ids: readonly string[]) => void) | undefined,
): void {
  if (ids.length === 0) return;
  if (onUnreadable === undefined)
    throw new BundocError('integrity_error', { detail: `these do not open: ${ids.join(', ')}` });
  onUnreadable(ids);
}
