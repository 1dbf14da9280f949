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

  /** A collection; it need not exist. */
  collection<T extends object = Record<string, unknown>>(name: string): Collection<T> {
    return new Collection<T>(this.#transport, this.#path, name);
  }

  /**
   * What the project holds; undefined when it does not exist. @throws BundocError `project_destroyed` when it
   * was deleted.
   */
  async info(options: CallOptions = {}): Promise<ProjectInfo | undefined> {
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
   */
  async collections(options: CallOptions = {}): Promise<readonly CollectionSummary[]> {
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
   */
  changes<T extends object = Record<string, unknown>>(options: FollowOptions = {}): Following<T> {
    return new ChangesReader<T>(this.#transport, this.#path).follow(options);
  }

  /**
   * Streams a sealed backup of the project; needs `docs:admin`. It is complete only if it passes `bundoc
   * verify-backup`.
   *
   * @throws BundocError before the first bytes; the stream errors when the backup is cut short.
   */
  backup(options: { readonly signal?: AbortSignal } = {}): Promise<ReadableStream<Uint8Array>> {
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
   */
  async move(
    options: { readonly signal?: AbortSignal; readonly onProgress?: (progress: MoveProgress) => void } = {},
  ): Promise<MovedProject> {
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
   * @throws BundocError `precondition_failed` with each failed operation in `errors`.
   */
  async batch(
    operations: readonly BatchOperation[],
    options: WriteOptions = {},
  ): Promise<readonly BatchResult[]> {
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

  /** A page of the feed. */
  changesPage<T extends object = Record<string, unknown>>(
    options: ChangesPageOptions = {},
  ): Promise<ChangesPage<T>> {
    return new ChangesReader<T>(this.#transport, this.#path).page(options);
  }
}

/** A client of one Bundoc service with one source of tokens. */
export class Bundoc {
  readonly #transport: Transport;

  /** @throws TypeError when the URL is invalid. */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
  }

  /** A project. It need not exist: the first write creates it. */
  project(id: string): Project {
    return new Project(this.#transport, id);
  }

  /**
   * Deletes a project and destroys its key, permanently; needs `docs:admin`. A repeated call returns the same
   * answer.
   *
   * @throws BundocError `project_not_found`, `kms_unavailable`. The service finishes a deletion that has
   *   begun.
   */
  async deleteProject(id: string, options: CallOptions = {}): Promise<DeletedProject> {
    const { text } = await this.#transport.send({
      ...options,
      method: 'DELETE',
      path: `/projects/${segment(id)}`,
      query: { confirm: id },
      isIdempotent: true,
    });
    return JSON.parse(text) as DeletedProject;
  }

  /** A page of the projects that the token is for, ordered by id. */
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
    const { pageSize, cursor, prefix, summary, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: '/projects',
      query: { limit: pageSize, cursor, prefix, include: summary === true ? 'summary' : undefined },
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

  /** The ids of the projects that the token is for, in ascending order: all, or at most `limit`. */
  projects(options: CallOptions & Extent = {}): AsyncGenerator<string, void, void> {
    const { limit, pageSize, ...call } = options;
    return itemsOf(
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
