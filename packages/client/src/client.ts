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
import type { Metadata } from './document.ts';
import { hasCode } from './error.ts';
import { type MovedProject, type MoveProgress, readMove } from './move.ts';
import type { DeletedProject, ProjectInfo, ProjectPage, ProjectSummary } from './project-info.ts';
import { type CallOptions, Transport, type TransportOptions } from './transport.ts';

/** One project: its collections, and what happens in it. */
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
   * What the project holds; undefined when there is none. @throws BundocError `project_destroyed` for one
   * that was deleted.
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
   * What happens, each document once, at its last change: `for await (const change of project.changes())`. A
   * stream that breaks off resumes behind the last change that was taken.
   *
   * @throws BundocError `position_gone` when deletions behind `since` are forgotten.
   */
  changes<T extends object = Record<string, unknown>>(options: FollowOptions = {}): Following<T> {
    return new ChangesReader<T>(this.#transport, this.#path).follow(options);
  }

  /**
   * A backup of the project, sealed, as it comes; with `docs:admin`. It is whole only if it passes
   * `bundoc verify-backup`.
   *
   * @throws BundocError before the first bytes; the stream errors when the backup breaks off.
   */
  backup(options: { readonly signal?: AbortSignal } = {}): Promise<ReadableStream<Uint8Array>> {
    const signal = options.signal ?? new AbortController().signal;
    return this.#transport.open({ method: 'GET', path: `${this.#path}/backup`, isIdempotent: true }, signal);
  }

  /**
   * Moves the project out of files to where the service may move it to, while it is used; with
   * `docs:admin`. Called again, it begins what was cut short again, or answers the same. An aborted `signal`
   * stops it, unless the project is about to change hands.
   *
   * @throws BundocError `move_refused`, `rate_limited` while others are moved; `network_error` when the
   * answer breaks off.
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
   * Carries out operations, each on a document of its own: all of them or none.
   *
   * @throws BundocError `precondition_failed` with each operation that failed among `errors`.
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

/** Bundoc, as one holder of tokens sees it. */
export class Bundoc {
  readonly #transport: Transport;

  /** @throws TypeError for a URL that is none. */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
  }

  /** A project; it need not exist: the first write makes it. */
  project(id: string): Project {
    return new Project(this.#transport, id);
  }

  /**
   * Deletes a project and destroys its key, for ever; with `docs:admin`. Repeated, it answers the same.
   *
   * @throws BundocError `project_not_found`, `kms_unavailable`; the service continues what was begun.
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

  /** A page of the projects that the token is for, in the order of their ids. */
  async projectsPage(
    options: CallOptions & {
      readonly limit?: number | undefined;
      readonly cursor?: string | undefined;
      /** How their ids begin. */
      readonly prefix?: string | undefined;
      /** Whether each is listed with what is known without its key; that opens none. */
      readonly summary?: boolean | undefined;
    } = {},
  ): Promise<ProjectPage> {
    const { limit, cursor, prefix, summary, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: '/projects',
      query: { limit, cursor, prefix, include: summary === true ? 'summary' : undefined },
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

  /** The ids of all projects that the token is for, in their order. */
  async *projects(
    options: CallOptions & { readonly limit?: number | undefined } = {},
  ): AsyncGenerator<string, void, void> {
    let cursor: string | undefined;
    do {
      const page = await this.projectsPage({ ...options, cursor });
      yield* page.projects;
      cursor = page.nextCursor;
    } while (cursor !== undefined);
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
