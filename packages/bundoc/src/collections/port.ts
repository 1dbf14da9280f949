import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { StoredDefinition } from '../engine/definition.ts';
import type { CommitOptions, Precondition, ProjectStore } from '../engine/port.ts';

/** A project's storage, and what its collections were defined to be: writes and reads obey it. */
export interface CollectionStore extends ProjectStore {
  /** @throws AppError `integrity_error` when the definition does not open. */
  definition(collection: string): StoredDefinition | undefined;

  /** Names of the collections that are defined. */
  readonly defined: readonly string[];

  /**
   * Makes, replaces or, with undefined, removes a definition. Once resolved, it is durable and obeyed by
   * every write that begins later; repeated under an idempotency key, it is answered as it was, and whatever
   * the collection is defined to be by now stays.
   *
   * @returns its revision; undefined once it is removed.
   * @throws AppError `precondition_failed`; `collection_not_found` when there is none to remove;
   * `invalid_request` for a schema that is not accepted, or too many definitions; and those of commits.
   */
  define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options?: CommitOptions,
  ): Promise<{ readonly created: boolean; readonly rev: string | undefined }>;
}
