import { closeSync } from 'node:fs';
import type { DataFolder } from '@bundoc/shared/files/data-folder';

/**
 * Enough for the projects that are being written to. A file outside these folders takes a fifth more
 * processor time.
 */
export const OPEN_FOLDERS_MAX = 12;

/**
 * How long a checked folder is assumed to be in its place, milliseconds: a check for each file would double
 * its cost.
 */
export const CHECKED_FOR_MS = 1_000;

interface OpenFolder {
  readonly descriptor: number;
  readonly entries: string;
  readonly checkedMs: number;
}

/**
 * An LRU of open folders, so that writing many files does not open a folder for each. When another process
 * removes or renames a folder, it is reopened within a second; until then, files go into the old folder. Code
 * in this process that removes or renames folders must call for them to be forgotten.
 */
export class OpenFolders implements Disposable {
  readonly #folder: DataFolder;
  readonly #monotonic: () => number;
  readonly #open = new Map<string, OpenFolder>();

  /** @param monotonic returns milliseconds. */
  constructor(folder: DataFolder, monotonic: () => number = () => performance.now()) {
    this.#folder = folder;
    this.#monotonic = monotonic;
  }

  /**
   * @returns the path of its entries, valid until the next call.
   * @throws UnsafeEntry; the system's error otherwise.
   */
  entriesOf(below: string): string {
    const nowMs = this.#monotonic();
    const known = this.#open.get(below);
    if (known !== undefined) {
      if (nowMs - known.checkedMs < CHECKED_FOR_MS) return known.entries;
      // Moves it to the end of the LRU.
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

  /** Closes all folders; they are reopened on use. */
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
