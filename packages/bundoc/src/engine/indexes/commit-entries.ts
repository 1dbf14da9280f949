import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * Entries in indexes that one commit makes and takes away at most. A single document has fewer, with those of
 * indexes on their way out.
 */
export const COMMIT_ENTRIES_MAX = 50_000;

/** Counts what one commit makes and takes away. */
export class CommitEntries {
  #entries = 0;

  /** @throws AppError `payload_too_large`. */
  add(entries: number): void {
    this.#entries += entries;
    if (this.#entries > COMMIT_ENTRIES_MAX)
      throw new AppError('payload_too_large', {
        detail: `the documents have, or had, more than ${COMMIT_ENTRIES_MAX} entries in indexes`,
      });
  }
}
