import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * Maximum number of index entries that one commit adds and removes. A single document stays below it,
 * including indexes that are being removed.
 */
export const COMMIT_ENTRIES_MAX = 50_000;

/** Counts the index entries that one commit adds and removes. */
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
