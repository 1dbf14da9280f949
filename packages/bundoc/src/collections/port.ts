import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { StoredDefinition } from '../engine/port/definition.ts';
import type { CommitOptions, Precondition, ProjectStore } from '../engine/port/port.ts';
import type { Work } from '../work/work.ts';
import type { DroppedDocuments } from './drop-documents.ts';

/** A project's storage that enforces the definitions of its collections on reads and writes. */
export interface CollectionStore extends ProjectStore {
  /** @throws AppError `integrity_error` when the definition cannot be decrypted. */
  definition(collection: string): StoredDefinition | undefined;

  /** Removes the first documents of a collection, also expired ones: see {@link dropDocuments}. */
  dropDocuments(collection: string, work: Work): Promise<DroppedDocuments>;

  /** Names of the defined collections. */
  readonly defined: readonly string[];

  /**
   * Creates, replaces or, with undefined, removes a definition. Once resolved, it is durable, and every later
   * write obeys it. A repetition under an idempotency key returns the first result and leaves the current
   * definition alone.
   *
   * @param definition has an accepted schema.
   * @returns its revision; undefined once it is removed.
   * @throws AppError `precondition_failed`; `collection_not_found` when there is none to remove;
   *   `invalid_request` for too many definitions; and those of commits.
   */
  define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options?: CommitOptions,
  ): Promise<{ readonly created: boolean; readonly rev: string | undefined }>;
}
