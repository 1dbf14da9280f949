import { closeSync } from 'node:fs';
import type { DataFolder } from './data-folder.ts';

/** As many as one project has folders of documents. */
const OPEN_MAX = 256;

interface OpenFolder {
  readonly descriptor: number;
  readonly entries: string;
  isChecked: boolean;
}

/**
 * Folders that are kept open for those who write many files, so that not each file opens its folder: those used last, whatever
 * project they are of. A folder that was removed or renamed since is opened again.
 */
export class OpenFolders implements Disposable {
  readonly #folder: DataFolder;
  readonly #open = new Map<string, OpenFolder>();

  constructor(folder: DataFolder) {
    this.#folder = folder;
  }

  /** Has each folder looked at again before it is used next. */
  checkAll(): void {
    for (const open of this.#open.values()) open.isChecked = false;
  }

  /**
   * @returns the path by which its entries are reached, good until the next call.
   * @throws UnsafeEntry; the system's error otherwise.
   */
  entriesOf(below: string): string {
    const known = this.#open.get(below);
    if (known !== undefined) {
      this.#open.delete(below);
      known.isChecked ||= this.#isStillThere(known, below);
      if (known.isChecked) {
        this.#open.set(below, known);
        return known.entries;
      }
      closeSync(known.descriptor);
    }
    if (this.#open.size >= OPEN_MAX) this.#closeOldest();
    const descriptor = this.#folder.openFolderSync(below);
    const entries = this.#folder.entriesOf(descriptor, below);
    this.#open.set(below, { descriptor, entries, isChecked: true });
    return entries;
  }

  [Symbol.dispose](): void {
    while (this.#open.size > 0) this.#closeOldest();
  }

  #isStillThere({ descriptor }: OpenFolder, below: string): boolean {
    return this.#folder.isAt(descriptor, below, 'named');
  }

  #closeOldest(): void {
    const [oldest] = this.#open;
    if (oldest === undefined) return;
    const [below, { descriptor }] = oldest;
    this.#open.delete(below);
    closeSync(descriptor);
  }
}
