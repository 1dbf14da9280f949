import {
  type CollectionDefinition,
  type CollectionInfo,
  collectionOf,
  type DefinedCollection,
  type IndexStatus,
  type SchemaCheck,
} from './definition.ts';
import {
  type Content,
  Document,
  type DocumentPage,
  documentsOf,
  JsonText,
  jsonOf,
  type Metadata,
  pageOf,
  reportUnreadable,
  textOf,
} from './document.ts';
import { BundocError, hasCode } from './error.ts';
import { elementTexts, memberTexts } from './json-slices.ts';
import {
  CALL,
  fieldsText,
  requireCondition,
  requireKnown,
  requirePageSize,
  shown,
  WRITE,
} from './options.ts';
import {
  type Aggregation,
  type Explanation,
  type Figure,
  type Group,
  type Query,
  type QueryPage,
  sumOfExplanations,
  type Where,
} from './query.ts';
import type { CallOptions, Transport } from './transport.ts';
import { isJsonPatch, patchText, type Update, updateText } from './update.ts';
import { type WhereOptions, type WrittenWhere, writeWhere } from './where.ts';

export interface WriteOptions extends CallOptions {
  /**
   * Makes the write take effect once, however often it is sent with this key within a day. By default each
   * call has a new key, so that the client can retry it. Pass a key that you keep to repeat the same call
   * later.
   */
  readonly idempotencyKey?: string | undefined;
}

export interface ConditionalOptions extends WriteOptions {
  /** Required revision of the document (`*`: any); otherwise `precondition_failed`. */
  readonly ifMatch?: string;
}

export interface ReplaceOptions extends ConditionalOptions {
  /** `*`: only if the document does not exist. */
  readonly ifNoneMatch?: '*';
}

export interface ListOptions extends CallOptions {
  /** Documents per page, 1 to 1,000; 100 by default. */
  readonly pageSize?: number | undefined;
  /** Paths of members joined by dots, 1 to 50. Only these and the metadata are returned. */
  readonly fields?: readonly string[] | undefined;
  /** `asOf` of an earlier answer, to show the same state; BundocError `snapshot_too_old` once it is gone. */
  readonly asOf?: number | undefined;
}

/** How to handle documents that do not open. */
export interface UnreadableOptions {
  /** Called with their ids. Without it, such documents end the call or iteration with `integrity_error`. */
  readonly onUnreadable?: ((ids: readonly string[]) => void) | undefined;
}

export interface IterateOptions extends ListOptions, UnreadableOptions {
  /** Documents at most, in all pages together; no bound by default. */
  readonly limit?: number | undefined;
}

export interface QueryOptions extends CallOptions, UnreadableOptions {
  /**
   * Called with the explanation of an answer; in an iteration after each page, with the sums of all pages so
   * far. Without it, none is requested.
   */
  readonly onExplained?: ((explanation: Explanation) => void) | undefined;
}

/** Options of a count or an aggregation. */
export interface FigureOptions extends QueryOptions {
  /** `asOf` of an earlier answer, to show the same state; BundocError `snapshot_too_old` once it is gone. */
  readonly asOf?: number | undefined;
  /** Called with the position of the last commit that the answer shows. */
  readonly onAsOf?: ((asOf: number) => void) | undefined;
}

/** Preconditions of a change of a definition. */
export interface DefineOptions extends WriteOptions {
  /** Required revision of the definition (`*`: any); otherwise `precondition_failed`. */
  readonly ifMatch?: string;
  /** `*`: only if the collection is not defined. */
  readonly ifNoneMatch?: '*';
}

/** The names of the options of each call, for programs without types. */
const CONDITIONAL = ['ifMatch', ...WRITE] as const satisfies readonly (keyof ConditionalOptions)[];
const REPLACE = ['ifNoneMatch', ...CONDITIONAL] as const satisfies readonly (keyof ReplaceOptions)[];
const LIST = ['pageSize', 'fields', 'asOf', ...CALL] as const satisfies readonly (keyof ListOptions)[];
const QUERY = ['onUnreadable', 'onExplained', ...CALL] as const satisfies readonly (keyof QueryOptions)[];
const FIGURE = ['asOf', 'onAsOf', ...QUERY] as const satisfies readonly (keyof FigureOptions)[];
const QUESTION = [
  'where',
  'orderBy',
  'fields',
  'pageSize',
  'asOf',
] as const satisfies readonly (keyof Query)[];

const INDEX_POLL_MS = 500;
/** Documents of one answer to a check of a schema. */
const CHECKED_MAX = 10_000;

/** One operation of a JSON Patch (RFC 6902). */
export type PatchOperation =
  | { readonly op: 'add' | 'replace' | 'test'; readonly path: string; readonly value: unknown }
  | { readonly op: 'remove'; readonly path: string }
  | { readonly op: 'move' | 'copy'; readonly from: string; readonly path: string };

/**
 * The documents of one collection. `T` is the type of their content, which is not checked at run time.
 *
 * One class, because it has a method for each operation of the API on a collection.
 */
export class Collection<T extends object = Record<string, unknown>> {
  readonly #transport: Transport;
  readonly #path: string;
  readonly name: string;

  constructor(transport: Transport, projectPath: string, name: string) {
    this.#transport = transport;
    this.#path = `${projectPath}/collections/${segment(name)}`;
    this.name = name;
  }

  /**
   * Creates a document, under its `_id` or a new id that sorts by time. @throws BundocError
   * `document_exists`.
   *
   * @example
   * ```ts
   * const { _id, _rev } = await notes.create({ title: 'Hello' });
   * console.log(_id, _rev);
   * ```
   */
  async create(content: Content<T>, options: WriteOptions = {}): Promise<Metadata> {
    requireKnown('options', options, WRITE);
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

  /**
   * @returns the document; undefined when it does not exist.
   *
   * @example
   * ```ts
   * const note = await notes.get('first');
   * if (note !== undefined) console.log(note.value.title, note.rev);
   * ```
   */
  async get(id: string, options: CallOptions = {}): Promise<Document<T> | undefined> {
    requireKnown('options', options, CALL);
    try {
      const path = this.#documentPath(id);
      const { text } = await this.#transport.send({ ...options, method: 'GET', path, isIdempotent: true });
      return new Document<T>(text);
    } catch (error) {
      if (hasCode(error, 'document_not_found', 'project_not_found')) return undefined;
      throw error;
    }
  }

  /**
   * Creates or replaces a document. @throws BundocError `precondition_failed`.
   *
   * @example
   * ```ts
   * import { hasCode } from '@bundoc/client';
   *
   * const note = await notes.get('first');
   * try {
   *   const condition = note === undefined ? { ifNoneMatch: '*' as const } : { ifMatch: note.rev };
   *   await notes.put('first', { title: 'Hello again' }, condition);
   * } catch (error) {
   *   if (!hasCode(error, 'precondition_failed')) throw error;
   *   console.log('somebody was faster; it is now at', error.currentRev);
   * }
   * ```
   */
  async put(id: string, content: Content<T>, options: ReplaceOptions = {}): Promise<Metadata> {
    requireKnown('options', options, REPLACE);
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
   * Changes parts of a document: an object is a merge patch (RFC 7396), an array a JSON Patch (RFC 6902). The
   * rest of its text stays as it is. A `JsonText` is sent unchanged.
   *
   * @throws BundocError `document_not_found`, `precondition_failed`, and the codes for a patch that does
   *   not apply; TypeError for an operator such as `$inc`, which {@link update} takes.
   *
   * @example
   * ```ts
   * await notes.patch('first', { stars: 5 });
   * await notes.patch('first', [
   *   { op: 'test', path: '/stars', value: 5 },
   *   { op: 'replace', path: '/stars', value: 4 },
   * ]);
   * ```
   */
  async patch(
    id: string,
    patch: object | readonly PatchOperation[] | JsonText,
    options: ConditionalOptions = {},
  ): Promise<Metadata> {
    requireKnown('options', options, CONDITIONAL);
    const body = patchText('patch', patch);
    return await this.#patch(id, isJsonPatch(body) ? 'json-patch' : 'merge-patch', body, options);
  }

  /**
   * Changes parts of a document by operators, as `docs/updates.md` has them. Sums and products are exact
   * decimals, and the rest of the text stays as it is. A `JsonText` is sent unchanged.
   *
   * @throws BundocError `document_not_found`, `precondition_failed`; `invalid_patch` for an update that fits
   *   no document, `patch_inapplicable` for one that does not fit this document.
   *
   * @example
   * ```ts
   * await notes.update('first', {
   *   $inc: { stars: 1 },
   *   $push: { readers: { $each: ['ada', 'bob'], $slice: -10 } },
   *   $currentDate: { 'last.read': true },
   * });
   * ```
   */
  async update(
    id: string,
    update: Update<T> | JsonText,
    options: ConditionalOptions = {},
  ): Promise<Metadata> {
    requireKnown('options', options, CONDITIONAL);
    return await this.#patch(id, 'vnd.bundoc.update', updateText('update', update), options);
  }

  /**
   * @throws BundocError `document_not_found`, `precondition_failed`.
   *
   * @example
   * ```ts
   * await notes.delete('first', { ifMatch: '*' });
   * ```
   */
  async delete(id: string, options: ConditionalOptions = {}): Promise<void> {
    requireKnown('options', options, CONDITIONAL);
    const path = this.#documentPath(id);
    const headers = conditionsOf(options);
    await this.#transport.send({ ...options, method: 'DELETE', path, headers, isIdempotent: true });
  }

  /**
   * A page of the collection, in order of creation.
   *
   * @example
   * ```ts
   * const page = await notes.listPage({ pageSize: 50, fields: ['title'], total: true });
   * console.log(`${page.documents.length} of ${page.total}`);
   * const cursor = page.nextCursor;
   * if (cursor !== undefined) await notes.listPage({ pageSize: 50, fields: ['title'], cursor });
   * ```
   */
  async listPage(
    options: ListOptions & {
      readonly cursor?: string | undefined;
      /** Whether the page has `total`, the number of documents in the collection. */
      readonly total?: boolean | undefined;
    } = {},
  ): Promise<DocumentPage<T>> {
    requireKnown('options', options, ['cursor', 'total', ...LIST]);
    const { pageSize, cursor, fields, total, asOf, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: `${this.#path}/documents`,
      query: {
        limit: requirePageSize(pageSize),
        cursor,
        fields: fieldsText(fields),
        include: total === true ? 'total' : undefined,
        as_of: asOf,
      },
      isIdempotent: true,
    });
    return pageOf<T>(text);
  }

  /**
   * All documents, in order of creation. Documents that are created during the iteration come last.
   *
   * @example
   * ```ts
   * for await (const note of notes.list({ limit: 1_000 })) console.log(note.id, note.value.title);
   * ```
   */
  async *list(options: IterateOptions = {}): AsyncGenerator<Document<T>, void, void> {
    requireKnown('options', options, ['limit', 'onUnreadable', ...LIST]);
    const { onUnreadable, limit, pageSize, ...rest } = options;
    yield* documentsOf(
      { limit, pageSize },
      (cursor, size) => this.listPage({ ...rest, pageSize: size, cursor }),
      onUnreadable,
    );
  }

  /**
   * A page of the documents that match a query.
   *
   * @throws BundocError `invalid_request` for an invalid query; `query_too_expensive` when it would read
   *   too much.
   *
   * @example
   * ```ts
   * const page = await notes.queryPage({ where: { stars: { $gte: 4 } }, pageSize: 20, explain: true });
   * console.log(page.documents.length, page.explain?.documents_scanned, page.nextCursor);
   * ```
   */
  async queryPage(
    query: Query & { readonly cursor?: string | undefined; readonly explain?: boolean | undefined } = {},
    options: CallOptions = {},
  ): Promise<QueryPage<T>> {
    requireKnown('query', query, [...QUESTION, 'cursor', 'explain'], CALL);
    requireKnown('options', options, CALL);
    const { pageSize, asOf: as_of, ...question } = query;
    const text = await this.#ask('query', { ...question, as_of, limit: requirePageSize(pageSize) }, options);
    const { documents, unreadable, nextCursor, asOf, rest } = pageOf<T>(text);
    return { documents, unreadable, nextCursor, asOf, explain: rest['explain'] as Explanation | undefined };
  }

  /**
   * The documents that match a query, in its order: all, or at most `limit`.
   *
   * @example
   * ```ts
   * const best = notes.query({
   *   where: { stars: { $gte: 4 }, title: { $beginsWith: 'Hel' } },
   *   orderBy: [{ field: 'stars', direction: 'desc' }],
   *   limit: 5,
   * });
   * for await (const note of best) console.log(note.value.title);
   * ```
   */
  async *query(
    query: Query & {
      /** Documents at most, in all pages together; no bound by default. */
      readonly limit?: number | undefined;
    } = {},
    options: QueryOptions = {},
  ): AsyncGenerator<Document<T>, void, void> {
    requireKnown('query', query, [...QUESTION, 'limit'], QUERY);
    requireKnown('options', options, QUERY);
    const { onUnreadable, onExplained, ...call } = options;
    const { limit, pageSize, ...question } = query;
    const explain = onExplained !== undefined;
    let explained: Explanation | undefined;
    const pageAt = async (cursor: string | undefined, size: number | undefined) => {
      const page = await this.queryPage({ ...question, pageSize: size, cursor, explain }, call);
      if (page.explain !== undefined) {
        explained = sumOfExplanations(explained, page.explain);
        onExplained?.(explained);
      }
      return page;
    };
    yield* documentsOf({ limit, pageSize }, pageAt, onUnreadable);
  }

  /**
   * How many documents match a condition.
   *
   * @example
   * ```ts
   * console.log(await notes.count({ stars: { $gte: 4 } }));
   * console.log(await notes.count({ title: { $contains: 'hello', $options: 'i' } }));
   * ```
   */
  async count(where?: Where | JsonText, options: FigureOptions = {}): Promise<number> {
    requireCondition(where);
    return JSON.parse((await this.#figures('count', { where }, options)).get('count') as string) as number;
  }

  /**
   * Figures over the documents that match a condition, by group.
   *
   * @example
   * ```ts
   * const groups = await notes.aggregate({
   *   groupBy: ['stars'],
   *   figures: { notes: { op: 'count' }, first: { op: 'min', field: 'title' } },
   *   having: { notes: { $gte: 2 } },
   * });
   * for (const { group, figures } of groups) console.log(group['stars'], figures.notes, figures.first);
   * ```
   */
  async aggregate<const F extends Readonly<Record<string, Figure>>>(
    aggregation: Aggregation<F>,
    options: FigureOptions = {},
  ): Promise<readonly Group<F>[]> {
    requireKnown('aggregation', aggregation, ['where', 'groupBy', 'figures', 'having'], FIGURE);
    const members = await this.#figures('aggregate', aggregation, options);
    return elementTexts(members.get('groups') ?? '[]').map(
      (text) => ({ ...JSON.parse(text), text }) as Group<F>,
    );
  }

  /**
   * The contents and the definition of the collection; undefined when it is not defined and holds no
   * document.
   *
   * @example
   * ```ts
   * const info = await notes.info();
   * console.log(info?.documents, info?.indexes.map(({ name, state }) => `${name}: ${state}`));
   * ```
   */
  async info(options: CallOptions = {}): Promise<CollectionInfo | undefined> {
    requireKnown('options', options, CALL);
    try {
      const { text, headers } = await this.#transport.send({
        ...options,
        method: 'GET',
        path: this.#path,
        isIdempotent: true,
      });
      return collectionOf(text, headers);
    } catch (error) {
      if (hasCode(error, 'collection_not_found', 'project_not_found')) return undefined;
      throw error;
    }
  }

  /**
   * Defines the collection, and replaces any earlier definition as a whole; needs `docs:admin`. Indexes are
   * built in the background: see {@link indexProgress}.
   *
   * @throws BundocError `precondition_failed`.
   *
   * @example
   * ```ts
   * const { existing } = await notes.define({
   *   indexes: [{ fields: ['stars'] }],
   *   schema: { required: ['title'], properties: { title: { type: 'string' } } },
   *   ttl: { field: 'expires_at' },
   * });
   * console.log(`${existing.failing} of ${existing.checked} documents do not match the schema`);
   * ```
   */
  async define(definition: CollectionDefinition, options: DefineOptions = {}): Promise<DefinedCollection> {
    requireKnown('options', options, REPLACE);
    const { text, headers } = await this.#transport.send({
      ...options,
      method: 'PUT',
      path: this.#path,
      headers: { ...conditionsOf(options), 'if-none-match': options.ifNoneMatch },
      body: JSON.stringify(definition),
      isIdempotent: true,
    });
    return collectionOf(text, headers);
  }

  /**
   * How many of the documents a schema would refuse, without defining it; needs `docs:read` and `docs:admin`.
   * Changes nothing. Each answer covers some documents, until all were checked.
   *
   * @throws BundocError `invalid_request` for a schema that is not accepted.
   *
   * @example
   * ```ts
   * let failing = 0;
   * for await (const part of notes.checkSchema({ required: ['title'] })) failing += part.failing;
   * console.log(`${failing} documents have no title`);
   * ```
   */
  async *checkSchema(
    schema: Readonly<Record<string, unknown>>,
    options: CallOptions & {
      /** Documents per answer, 1 to 10,000; 1,000 by default. */
      readonly pageSize?: number | undefined;
      /** `nextCursor` of an earlier answer, to continue behind it. */
      readonly cursor?: string | undefined;
    } = {},
  ): AsyncGenerator<SchemaCheck, void, void> {
    requireKnown('options', options, ['pageSize', 'cursor', ...CALL]);
    const { pageSize, cursor: first, ...call } = options;
    let cursor = first;
    do {
      const body = { schema, limit: requirePageSize(pageSize, CHECKED_MAX), cursor };
      const answer = JSON.parse(await this.#ask('schema-check', body, call)) as Omit<
        SchemaCheck,
        'unreadable' | 'nextCursor'
      > & { readonly unreadable?: readonly string[]; readonly next_cursor?: string };
      const { unreadable = [], next_cursor: nextCursor, ...found } = answer;
      yield { ...found, unreadable, nextCursor };
      cursor = nextCursor;
    } while (cursor !== undefined);
  }

  /**
   * Updates all documents that a condition holds for, as {@link update} does one. Each answer is one atomic
   * batch; the whole is not. Each document is changed once. One that stops matching meanwhile is left alone.
   *
   * @param where `{}` means every document.
   * @throws BundocError `invalid_patch`; `patch_inapplicable`, `schema_violation` and `unique_violation`,
   *   whose `detail` names the document. Documents of earlier answers are changed then.
   *
   * @example
   * ```ts
   * const { matched, written } = await notes.updateWhere({ stars: { $gte: 4 } }, { $inc: { stars: 1 } });
   * console.log(`changed ${written} of ${matched}`);
   * ```
   */
  async updateWhere(
    where: Where | JsonText,
    update: Update<T> | JsonText,
    options: WhereOptions = {},
  ): Promise<WrittenWhere> {
    const text = updateText('update', update);
    return await writeWhere(this.#transport, `${this.#path}/update`, where, text, options, newKey);
  }

  /**
   * Deletes all documents that a condition holds for, as {@link updateWhere} changes them.
   *
   * @param where `{}` means every document.
   *
   * @example
   * ```ts
   * const found = await notes.deleteWhere({ stars: { $lt: 2 } }, { dryRun: true });
   * console.log(`would delete ${found.written}, the first are ${found.ids.join()}`);
   * await notes.deleteWhere({ stars: { $lt: 2 } }, { onWritten: (count) => console.log(count) });
   * ```
   */
  async deleteWhere(where: Where | JsonText, options: WhereOptions = {}): Promise<WrittenWhere> {
    return await writeWhere(this.#transport, `${this.#path}/delete`, where, undefined, options, newKey);
  }

  /**
   * Deletes all documents of the collection, then its definition; needs `docs:admin`. Each answer has deleted
   * up to 500. May be stopped and repeated.
   *
   * @returns the number of deleted documents.
   *
   * @example
   * ```ts
   * const deleted = await notes.drop({ onDeleted: (count) => console.log(count) });
   * ```
   */
  async drop(
    options: CallOptions & {
      /** Called after each answer with the number of documents that are deleted so far. */
      readonly onDeleted?: ((count: number) => void) | undefined;
    } = {},
  ): Promise<number> {
    requireKnown('options', options, ['onDeleted', ...CALL]);
    const { onDeleted, ...call } = options;
    let count = 0;
    for (let more = true; more; ) {
      const { text } = await this.#transport.send({
        ...call,
        method: 'DELETE',
        path: `${this.#path}/documents`,
        query: { confirm: this.name },
        isIdempotent: true,
      });
      const answer = JSON.parse(text) as { readonly deleted: number; readonly more: boolean };
      count += answer.deleted;
      more = answer.more;
      onDeleted?.(count);
    }
    return count;
  }

  /**
   * Removes the definition of the collection, if it has one; its documents stay. Needs `docs:admin`.
   *
   * @throws BundocError `precondition_failed`, also when a revision is given and the collection is not
   *   defined.
   *
   * @example
   * ```ts
   * await notes.undefine();
   * ```
   */
  async undefine(options: Omit<DefineOptions, 'ifNoneMatch'> = {}): Promise<void> {
    requireKnown('options', options, CONDITIONAL);
    try {
      await this.#transport.send({
        ...options,
        method: 'DELETE',
        path: `${this.#path}/definition`,
        headers: conditionsOf(options),
        isIdempotent: true,
      });
    } catch (error) {
      if (!hasCode(error, 'collection_not_found', 'project_not_found')) throw error;
      if (options.ifMatch !== undefined)
        throw new BundocError('precondition_failed', { status: 412, cause: error, problem: error.problem });
    }
  }

  /**
   * Polls the indexes until all are built, and yields each state including the last. Yields nothing when
   * there is no definition.
   *
   * @example
   * ```ts
   * for await (const indexes of notes.indexProgress())
   *   for (const { name, indexed, total } of indexes) console.log(name, `${indexed} of ${total}`);
   * ```
   */
  async *indexProgress(
    options: CallOptions & { readonly everyMs?: number | undefined } = {},
  ): AsyncGenerator<readonly IndexStatus[], void, void> {
    requireKnown('options', options, ['everyMs', ...CALL]);
    const { everyMs = INDEX_POLL_MS, ...call } = options;
    const signal = call.signal ?? new AbortController().signal;
    for (;;) {
      const info = await this.info(call);
      if (info?.rev === undefined) return;
      yield info.indexes;
      if (info.indexes.every(({ state }) => state !== 'building')) return;
      await this.#transport.pause(everyMs, signal);
    }
  }

  /**
   * @throws BundocError `integrity_error` when documents that do not open make the answer incomplete and
   *   there is no `onUnreadable`.
   */
  /** The members of an answer, each as its text. */
  async #figures(
    what: string,
    question: object,
    options: FigureOptions,
  ): Promise<ReadonlyMap<string, string>> {
    requireKnown('options', options, FIGURE);
    const { onUnreadable, onExplained, asOf, onAsOf, ...call } = options;
    const explain = onExplained !== undefined;
    const members = memberTexts(await this.#ask(what, { ...question, as_of: asOf, explain }, call));
    const read = (name: string) => JSON.parse(members.get(name) ?? 'null');
    if (members.has('explain')) onExplained?.(read('explain') as Explanation);
    if (members.has('as_of')) onAsOf?.(read('as_of') as number);
    reportUnreadable((read('unreadable') ?? []) as string[], onUnreadable);
    return members;
  }

  async #patch(id: string, kind: string, body: string, options: ConditionalOptions): Promise<Metadata> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'PATCH',
      path: this.#documentPath(id),
      headers: { ...conditionsOf(options), 'content-type': `application/${kind}+json` },
      body,
      isIdempotent: true,
    });
    return JSON.parse(text) as Metadata;
  }

  /** Queries change nothing, so they can be retried. */
  async #ask(what: string, question: object, options: CallOptions): Promise<string> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'POST',
      path: `${this.#path}/${what}`,
      body: questionText(question),
      isIdempotent: true,
    });
    return text;
  }

  #documentPath(id: string): string {
    return `${this.#path}/documents/${segment(id)}`;
  }
}

/** The body of a query. Exact conditions are kept to the byte. */
function questionText(question: object): string {
  const { where, having, ...rest } = question as { readonly where?: unknown; readonly having?: unknown };
  const conditions = Object.entries({ where, having }).flatMap(([name, condition]) => {
    if (condition === undefined) return [];
    const text = condition instanceof JsonText ? condition.text : jsonOf(name, condition, true);
    return [`"${name}":${text}`];
  });
  const others = JSON.stringify(rest).slice(1, -1);
  return `{${(others === '' ? conditions : [...conditions, others]).join(',')}}`;
}

/** A path segment. @throws TypeError for another type, and text that URL normalization would remove. */
export function segment(text: string): string {
  if (typeof text !== 'string' || text === '' || text === '.' || text === '..')
    throw new TypeError(`${shown(text)} is not a name or an id`);
  return encodeURIComponent(text);
}

/** An idempotency key. `crypto.randomUUID` does not exist in pages that were loaded over plain HTTP. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function conditionsOf({ idempotencyKey, ifMatch }: ConditionalOptions): Record<string, string | undefined> {
  return { 'idempotency-key': idempotencyKey ?? newKey(), 'if-match': tagOf(ifMatch) };
}

/** A revision as an entity tag. */
export function tagOf(rev: string | undefined): string | undefined {
  return rev === undefined || rev === '*' || rev.startsWith('"') ? rev : `"${rev}"`;
}
