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
import type { Metadata } from './document.ts';
import { Transport, type TransportOptions } from './transport.ts';

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
   * What happens, each document once, at its last change: `for await (const change of project.changes())`. A stream that breaks off is
   * gone on with behind the last change that was taken.
   *
   * @throws BundocError `position_gone` when deletions behind `since` are forgotten.
   */
  changes<T extends object = Record<string, unknown>>(options: FollowOptions = {}): Following<T> {
    return new ChangesReader<T>(this.#transport, this.#path).follow(options);
  }

  /**
   * A backup of the project, sealed, as it comes; with `docs:admin`. It is whole only if it passes `bundoc verify-backup`.
   *
   * @throws BundocError before the first bytes; the stream errors when the backup breaks off.
   */
  backup(options: { readonly signal?: AbortSignal } = {}): Promise<ReadableStream<Uint8Array>> {
    const signal = options.signal ?? new AbortController().signal;
    return this.#transport.open({ method: 'GET', path: `${this.#path}/backup`, isIdempotent: true }, signal);
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

/** What became of a project that was deleted. */
export interface DeletedProject {
  readonly project: string;
  readonly deleted_at: string;
  /** BunKMS's receipt of the destruction of its key; copies of the key are out of the world once the KEKs of `kek_ids` are destroyed, too. */
  readonly key?: {
    readonly id: string;
    readonly name: string;
    readonly destroyed_at: string;
    readonly kek_ids: readonly string[];
    readonly audit: { readonly seq: number; readonly hash: string };
  };
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
   * @throws BundocError `project_not_found`, `kms_unavailable`; what was begun, the service goes on with.
   */
  async deleteProject(id: string): Promise<DeletedProject> {
    const confirm = encodeURIComponent(id);
    const path = `/projects/${segment(id)}?confirm=${confirm}`;
    const { text } = await this.#transport.send({ method: 'DELETE', path, isIdempotent: true });
    return JSON.parse(text) as DeletedProject;
  }
}

export type { Change, Following, Metadata };
