import { type BatchOperation, type BatchResult, batchText } from './batch.ts';
import {
  type Change,
  type ChangesPage,
  type ChangesPageOptions,
  ChangesReader,
  type Following,
  type FollowOptions,
} from './changes.ts';
import { Collection, newKey, segment, type WriteOptions } from './collection.ts';
import type { CollectionSummary } from './definition.ts';
import { type Extent, itemsOf, JsonText, type Metadata } from './document.ts';
import { BundocError, hasCode } from './error.ts';
import { type MovedProject, type MoveProgress, readMove } from './move.ts';
import { CALL, requireKnown, requirePageSize, WRITE } from './options.ts';
import type { DeletedProject, ProjectInfo, ProjectPage, ProjectSummary } from './project-info.ts';
import { type CallOptions, Transport, type TransportOptions } from './transport.ts';

/** One project: its collections and its changes. */
export class Project {
  readonly #transport: Transport;
  readonly #path: string;
  readonly id: string;

  constructor(transport: Transport, id: string) {
    this.#transport = transport;
    this.#path = `/projects/${segment(id)}`;
    this.id = id;
  }

  /**
   * A collection; it need not exist.
   *
   * @example
   * ```ts
   * const notes = project.collection<{ title: string; stars?: number }>('notes');
   * await notes.create({ title: 'Hello' });
   * ```
   */
  collection<T extends object = Record<string, unknown>>(name: string): Collection<T> {
    return new Collection<T>(this.#transport, this.#path, name);
  }

  /**
   * What the project holds; undefined when it does not exist. @throws BundocError `project_destroyed` when it
   * was deleted.
   *
   * @example
   * ```ts
   * const info = await project.info();
   * console.log(info === undefined ? 'there is no such project' : `${info.documents} documents`);
   * ```
   */
  async info(options: CallOptions = {}): Promise<ProjectInfo | undefined> {
    requireKnown('options', options, CALL);
    try {
      const { text } = await this.#transport.send({
        ...options,
        method: 'GET',
        path: this.#path,
        isIdempotent: true,
      });
      return JSON.parse(text) as ProjectInfo;
    } catch (error) {
      if (hasCode(error, 'project_not_found')) return undefined;
      throw error;
    }
  }

  /**
   * The collections that hold a document or are defined, by name. @throws BundocError `project_not_found`.
   *
   * @example
   * ```ts
   * for (const { name, documents } of await project.collections()) console.log(name, documents);
   * ```
   */
  async collections(options: CallOptions = {}): Promise<readonly CollectionSummary[]> {
    requireKnown('options', options, CALL);
    const { text } = await this.#transport.send({
      ...options,
      method: 'GET',
      path: `${this.#path}/collections`,
      isIdempotent: true,
    });
    return (JSON.parse(text) as { collections: CollectionSummary[] }).collections;
  }

  /**
   * The changes of the project, each document once, at its latest change: `for await (const change of
   * project.changes())`. A stream that breaks resumes behind the last change that was consumed.
   *
   * @throws BundocError `position_gone` when deletions after `since` are no longer remembered.
   *
   * @example
   * ```ts
   * const changes = project.changes<{ title: string }>({ collection: 'notes', documents: true });
   * for await (const { id, deleted, document } of changes) {
   *   console.log(id, deleted ? 'was deleted' : document?.value.title);
   *   console.log('to resume behind it:', changes.since);
   * }
   * ```
   */
  changes<T extends object = Record<string, unknown>>(options: FollowOptions = {}): Following<T> {
    return new ChangesReader<T>(this.#transport, this.#path).follow(options);
  }

  /**
   * Streams a sealed backup of the project; needs `docs:admin`. It is complete only if it passes `bundoc
   * verify-backup`.
   *
   * @throws BundocError before the first bytes; the stream errors when the backup is cut short.
   *
   * @example
   * ```ts
   * import { writeFile } from 'node:fs/promises';
   *
   * await writeFile('acme.backup', await project.backup({ signal: AbortSignal.timeout(600_000) }));
   * ```
   */
  async backup(options: { readonly signal?: AbortSignal } = {}): Promise<ReadableStream<Uint8Array>> {
    requireKnown('options', options, ['signal']);
    const signal = options.signal ?? new AbortController().signal;
    return this.#transport.open({ method: 'GET', path: `${this.#path}/backup`, isIdempotent: true }, signal);
  }

  /**
   * Moves the project from files to the database of the service's `BUNDOC_MOVE_TO`, while it is in use; needs
   * `docs:admin`. A repeated call restarts an interrupted move, or returns the same answer. Aborting `signal`
   * stops the move, except while ownership is being handed over.
   *
   * @throws BundocError `move_refused`; `rate_limited` while others are moved; `network_error` when the
   *   answer is cut short.
   *
   * @example
   * ```ts
   * const { to } = await project.move({
   *   onProgress: ({ step, documents, of }) => console.log(`${step}: ${documents} of ${of}`),
   * });
   * console.log(`is now in ${to}`);
   * ```
   */
  async move(
    options: { readonly signal?: AbortSignal; readonly onProgress?: (progress: MoveProgress) => void } = {},
  ): Promise<MovedProject> {
    requireKnown('options', options, ['signal', 'onProgress']);
    const { signal = new AbortController().signal, onProgress = () => undefined } = options;
    const answer = await this.#transport.open(
      { method: 'POST', path: `${this.#path}/move`, isIdempotent: true },
      signal,
    );
    try {
      return await readMove(answer, onProgress);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  }

  /**
   * Carries out operations, each on a different document: all of them or none.
   *
   * @throws BundocError `precondition_failed` with each failed operation in `errors`; TypeError for an option
   *   or member of an operation that is none. `ifMatch` belongs to an operation.
   *
   * @example
   * ```ts
   * const [created] = await project.batch([
   *   { op: 'create', collection: 'notes', document: { title: 'three' } },
   *   { op: 'patch', collection: 'notes', id: 'first', patch: { stars: 3 } },
   *   { op: 'delete', collection: 'drafts', id: 'first', ifMatch: '*' },
   * ]);
   * console.log(created?._id);
   * ```
   */
  async batch(
    operations: readonly BatchOperation[],
    options: WriteOptions = {},
  ): Promise<readonly BatchResult[]> {
    requireKnown('options', options, WRITE);
    const { idempotencyKey, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'POST',
      path: `${this.#path}/batch`,
      headers: { 'idempotency-key': idempotencyKey ?? newKey() },
      body: batchText(operations),
      isIdempotent: true,
    });
    return (JSON.parse(text) as { results: BatchResult[] }).results;
  }

  /**
   * A page of the feed.
   *
   * @example
   * ```ts
   * let since: string | undefined;
   * for (let more = true; more; ) {
   *   const page = await project.changesPage({ since, pageSize: 500 });
   *   for (const { collection, id } of page.changes) console.log(collection, id);
   *   ({ since, more } = page);
   * }
   * ```
   */
  changesPage<T extends object = Record<string, unknown>>(
    options: ChangesPageOptions = {},
  ): Promise<ChangesPage<T>> {
    return new ChangesReader<T>(this.#transport, this.#path).page(options);
  }
}

/**
 * A client of one Bundoc service with one source of tokens.
 *
 * @example
 * ```ts
 * import { Bundoc } from '@bundoc/client';
 *
 * const bundoc = new Bundoc({
 *   url: 'https://docs.example.org',
 *   token: async () => (await fetch('/api/bundoc-token')).text(),
 * });
 * await bundoc.project('acme').collection('notes').create({ title: 'Hello' });
 * ```
 */
export class Bundoc {
  readonly #transport: Transport;

  /** @throws TypeError when the URL is invalid. */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
  }

  /**
   * A project. It need not exist: the first write creates it.
   *
   * @example
   * ```ts
   * const project = bundoc.project('acme');
   * console.log((await project.info())?.documents);
   * ```
   */
  project(id: string): Project {
    return new Project(this.#transport, id);
  }

  /**
   * Deletes a project and destroys its key, permanently; needs `docs:admin`. A repeated call returns the same
   * answer.
   *
   * @throws BundocError `project_not_found`, `kms_unavailable`. The service finishes a deletion that has
   *   begun.
   *
   * @example
   * ```ts
   * const { key } = await bundoc.deleteProject('acme');
   * console.log(`keep this as the proof: ${key?.audit.seq}:${key?.audit.hash}`);
   * ```
   */
  async deleteProject(id: string, options: CallOptions = {}): Promise<DeletedProject> {
    requireKnown('options', options, CALL);
    const { text } = await this.#transport.send({
      ...options,
      method: 'DELETE',
      path: `/projects/${segment(id)}`,
      query: { confirm: id },
      isIdempotent: true,
    });
    return JSON.parse(text) as DeletedProject;
  }

  /**
   * A page of the projects that the token is for, ordered by id.
   *
   * @example
   * ```ts
   * const page = await bundoc.projectsPage({ prefix: 'customer-', summary: true });
   * for (const id of page.projects) console.log(id, page.summaries.get(id)?.documents);
   * const next = page.nextCursor;
   * if (next !== undefined) await bundoc.projectsPage({ prefix: 'customer-', cursor: next });
   * ```
   */
  async projectsPage(
    options: CallOptions & {
      /** Projects per page, 1 to 1,000; 100 by default. */
      readonly pageSize?: number | undefined;
      readonly cursor?: string | undefined;
      /** Prefix of their ids. */
      readonly prefix?: string | undefined;
      /** Whether to add the summary of each project that needs no key. Opens no project. */
      readonly summary?: boolean | undefined;
    } = {},
  ): Promise<ProjectPage> {
    requireKnown('options', options, ['pageSize', 'cursor', 'prefix', 'summary', ...CALL]);
    const { pageSize, cursor, prefix, summary, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: '/projects',
      query: {
        limit: requirePageSize(pageSize),
        cursor,
        prefix,
        include: summary === true ? 'summary' : undefined,
      },
      isIdempotent: true,
    });
    const page = JSON.parse(text) as {
      projects: { project: string; summary?: ProjectSummary }[];
      next_cursor?: string;
    };
    return {
      projects: page.projects.map(({ project }) => project),
      summaries: new Map(
        page.projects.flatMap(({ project, summary: known }) => (known ? [[project, known] as const] : [])),
      ),
      nextCursor: page.next_cursor,
    };
  }

  /**
   * The ids of the projects that the token is for, in ascending order: all, or at most `limit`.
   *
   * @example
   * ```ts
   * for await (const id of bundoc.projects({ limit: 1_000 })) console.log(id);
   * ```
   */
  async *projects(options: CallOptions & Extent = {}): AsyncGenerator<string, void, void> {
    requireKnown('options', options, ['limit', 'pageSize', ...CALL]);
    const { limit, pageSize, ...call } = options;
    yield* itemsOf(
      { limit, pageSize },
      (cursor, size) => this.projectsPage({ ...call, pageSize: size, cursor }),
      ({ projects }) => projects,
    );
  }
}

export type {
  CallOptions,
  Change,
  DeletedProject,
  Following,
  Metadata,
  MovedProject,
  MoveProgress,
  ProjectInfo,
  ProjectSummary,
  TransportOptions,
};
/** What a program names that catches refusals or writes exact text. Each has its own entry, too. */
export { BundocError, hasCode, JsonText };
