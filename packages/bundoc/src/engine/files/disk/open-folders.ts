import { closeSync } from 'node:fs';
import type { DataFolder } from '@bundoc/shared/files/data-folder';

/**
 * For projects that are written to at the time. A file whose folder is not among them takes a fifth more of
 * processor time.
 */
export const OPEN_FOLDERS_MAX = 20;

/**
 * How long a folder that was found in its place is taken to be there, milliseconds: a look at each for each
 * file would double its cost.
 */
export const CHECKED_FOR_MS = 1_000;

interface OpenFolder {
  readonly descriptor: number;
  readonly entries: string;
  readonly checkedMs: number;
}

/**
 * Folders that are kept open for those who write many files, so that not each file opens its folder: those
 * checked last, whatever project they are of. A folder that others removed or renamed is opened again within
 * a second; until then files go into the very folder that was here. Who removes or renames folders in this
 * process has them forgotten.
 */
export class OpenFolders implements Disposable {
  readonly #folder: DataFolder;
  readonly #monotonic: () => number;
  readonly #open = new Map<string, OpenFolder>();

  /** @param monotonic milliseconds. */
  constructor(folder: DataFolder, monotonic: () => number = () => performance.now()) {
    this.#folder = folder;
    this.#monotonic = monotonic;
  }

  /**
   * @returns the path by which its entries are reached, good until the next call.
   * @throws UnsafeEntry; the system's error otherwise.
   */
  entriesOf(below: string): string {
    const nowMs = this.#monotonic();
    const known = this.#open.get(below);
    if (known !== undefined) {
      if (nowMs - known.checkedMs < CHECKED_FOR_MS) return known.entries;
      // It is now the one checked last.
      this.#open.delete(below);
      if (this.#folder.isAt(known.descriptor, below, 'named')) {
        this.#open.set(below, { ...known, checkedMs: nowMs });
        return known.entries;
      }
      closeSync(known.descriptor);
    }
    if (this.#open.size >= OPEN_FOLDERS_MAX) this.#closeOldest();
    const descriptor = this.#folder.openFolderSync(below);
    const entries = this.#folder.entriesOf(descriptor, below);
    this.#open.set(below, { descriptor, entries, checkedMs: nowMs });
    return entries;
  }

  /** Closes all; they are opened again when they are used. */
  [Symbol.dispose](): void {
    while (this.#open.size > 0) this.#closeOldest();
  }

  #closeOldest(): void {
    const [oldest] = this.#open;
    if (oldest === undefined) return;
    const [below, { descriptor }] = oldest;
    this.#open.delete(below);
    closeSync(descriptor);
  }
}
