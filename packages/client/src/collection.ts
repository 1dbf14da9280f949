import {
  type Content,
  Document,
  type DocumentPage,
  documentsOf,
  type Metadata,
  pageOf,
  textOf,
} from './document.ts';
import { hasCode } from './error.ts';
import type { Aggregation, Explanation, Figure, Group, Query, QueryPage, Where } from './query.ts';
import type { CallOptions, Transport } from './transport.ts';

export interface WriteOptions extends CallOptions {
  /**
   * Makes the write happen once, however often it is sent with this key: for a day. One is made for each call, so that the call may be
   * tried again; give one that you keep to be able to make the same call later.
   */
  readonly idempotencyKey?: string | undefined;
}

export interface ConditionalOptions extends WriteOptions {
  /** Only if this is the document's revision (or `*`: if it exists); else `precondition_failed`. */
  readonly ifMatch?: string | undefined;
}

export interface ReplaceOptions extends ConditionalOptions {
  /** `*`: only if the document does not exist. */
  readonly ifNoneMatch?: '*' | undefined;
}

export interface ListOptions extends CallOptions {
  /** Documents of a page, 1 to 1,000; 100 by default. */
  readonly limit?: number | undefined;
}

export interface IterateOptions extends ListOptions {
  /** Told of documents that do not open. Without it they end the iteration with `integrity_error`. */
  readonly onUnreadable?: ((ids: readonly string[]) => void) | undefined;
}

/** One operation of a JSON Patch (RFC 6902). */
export type PatchOperation =
  | { readonly op: 'add' | 'replace' | 'test'; readonly path: string; readonly value: unknown }
  | { readonly op: 'remove'; readonly path: string }
  | { readonly op: 'move' | 'copy'; readonly from: string; readonly path: string };

/** The documents of one collection. `T` is what they hold; nothing checks it. */
export class Collection<T extends object = Record<string, unknown>> {
  readonly #transport: Transport;
  readonly #path: string;
  readonly name: string;

  constructor(transport: Transport, projectPath: string, name: string) {
    this.#transport = transport;
    this.#path = `${projectPath}/collections/${segment(name)}`;
    this.name = name;
  }

  /** Makes a document, under its `_id` or a new id that sorts by time. @throws BundocError `document_exists`. */
  async create(content: Content<T>, options: WriteOptions = {}): Promise<Metadata> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'POST',
      path: `${this.#path}/documents`,
      headers: { 'idempotency-key': options.idempotencyKey ?? newKey() },
      body: textOf(content),
      isIdempotent: true,
    });
    return JSON.parse(text) as Metadata;
  }

  /** @returns the document; undefined when there is none. */
  async get(id: string, options: CallOptions = {}): Promise<Document<T> | undefined> {
    try {
      const path = this.#documentPath(id);
      const { text } = await this.#transport.send({ ...options, method: 'GET', path, isIdempotent: true });
      return new Document<T>(text);
    } catch (error) {
      if (hasCode(error, 'document_not_found', 'project_not_found')) return undefined;
      throw error;
    }
  }

  /** Makes or replaces a document. @throws BundocError `precondition_failed`. */
  async put(id: string, content: Content<T>, options: ReplaceOptions = {}): Promise<Metadata> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'PUT',
      path: this.#documentPath(id),
      headers: { ...conditionsOf(options), 'if-none-match': options.ifNoneMatch },
      body: textOf(content),
      isIdempotent: true,
    });
    return JSON.parse(text) as Metadata;
  }

  /**
   * Changes parts of a document: an object is a merge patch (RFC 7396), an array a JSON Patch (RFC 6902). The rest of its text stays as it is.
   *
   * @throws BundocError `document_not_found`, `precondition_failed`, and what a patch that does not fit is refused with.
   */
  async patch(
    id: string,
    patch: object | readonly PatchOperation[],
    options: ConditionalOptions = {},
  ): Promise<Metadata> {
    const type = Array.isArray(patch) ? 'application/json-patch+json' : 'application/merge-patch+json';
    const { text } = await this.#transport.send({
      ...options,
      method: 'PATCH',
      path: this.#documentPath(id),
      headers: { ...conditionsOf(options), 'content-type': type },
      body: JSON.stringify(patch),
      isIdempotent: true,
    });
    return JSON.parse(text) as Metadata;
  }

  /** @throws BundocError `document_not_found`, `precondition_failed`. */
  async delete(id: string, options: ConditionalOptions = {}): Promise<void> {
    const path = this.#documentPath(id);
    const headers = conditionsOf(options);
    await this.#transport.send({ ...options, method: 'DELETE', path, headers, isIdempotent: true });
  }

  /** A page of the collection, in the order of creation. */
  async listPage(
    options: ListOptions & { readonly cursor?: string | undefined } = {},
  ): Promise<DocumentPage<T>> {
    const { limit, cursor, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: `${this.#path}/documents`,
      query: { limit, cursor },
      isIdempotent: true,
    });
    return pageOf<T>(text);
  }

  /** All documents, in the order of creation; those that are made meanwhile come at the end. */
  list(options: IterateOptions = {}): AsyncGenerator<Document<T>, void, void> {
    const { onUnreadable, ...rest } = options;
    return documentsOf((cursor) => this.listPage({ ...rest, cursor }), onUnreadable);
  }

  /**
   * A page of the documents that a query finds.
   *
   * @throws BundocError `invalid_request` for a query that cannot be; `query_too_expensive` when too much would have to be looked at.
   */
  async queryPage(
    query: Query & { readonly cursor?: string | undefined; readonly explain?: boolean | undefined } = {},
    options: CallOptions = {},
  ): Promise<QueryPage<T>> {
    const { documents, unreadable, nextCursor, rest } = pageOf<T>(await this.#ask('query', query, options));
    return { documents, unreadable, nextCursor, explain: rest['explain'] as Explanation | undefined };
  }

  /** All documents that a query finds, in its order. */
  query(
    query: Query = {},
    options: Omit<IterateOptions, 'limit'> = {},
  ): AsyncGenerator<Document<T>, void, void> {
    const { onUnreadable, ...call } = options;
    return documentsOf((cursor) => this.queryPage({ ...query, cursor }, call), onUnreadable);
  }

  /** How many documents a condition holds for. */
  async count(where?: Where, options: CallOptions = {}): Promise<number> {
    const text = await this.#ask('count', { where }, options);
    return (JSON.parse(text) as { count: number }).count;
  }

  /** Figures over the documents that a condition holds for, in groups. */
  async aggregate<const F extends Readonly<Record<string, Figure>>>(
    aggregation: Aggregation<F>,
    options: CallOptions = {},
  ): Promise<readonly Group<F>[]> {
    const text = await this.#ask('aggregate', aggregation, options);
    return (JSON.parse(text) as { groups: Group<F>[] }).groups;
  }

  /** Questions change nothing, so they may be asked again. */
  async #ask(what: string, question: object, options: CallOptions): Promise<string> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'POST',
      path: `${this.#path}/${what}`,
      body: JSON.stringify(question),
      isIdempotent: true,
    });
    return text;
  }

  #documentPath(id: string): string {
    return `${this.#path}/documents/${segment(id)}`;
  }
}

/** A path segment. @throws TypeError for one that a URL would lose. */
export function segment(text: string): string {
  if (text === '' || text === '.' || text === '..')
    throw new TypeError(`${JSON.stringify(text)} is no name and no id`);
  return encodeURIComponent(text);
}

/** An idempotency key. `crypto.randomUUID` is not there for pages that came by plain HTTP. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function conditionsOf({ idempotencyKey, ifMatch }: ConditionalOptions): Record<string, string | undefined> {
  const tag = ifMatch === undefined || ifMatch === '*' || ifMatch.startsWith('"') ? ifMatch : `"${ifMatch}"`;
  return { 'idempotency-key': idempotencyKey ?? newKey(), 'if-match': tag };
}
