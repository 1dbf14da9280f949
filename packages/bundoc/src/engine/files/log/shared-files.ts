import type { LogFile, ReadableLogDisk } from './ports.ts';

/** Files that stay open while nobody reads them: of a log of 256 MiB, three of four. */
const KEPT_MAX = 12;

interface Shared {
  readonly file: Promise<LogFile>;
  readers: number;
}

/**
 * Segments that are open for reading, one descriptor for each: an opening of a project reads a few hundred
 * bytes, and to open a file for that takes longer than to read it. A segment keeps its file for good, also
 * when it is used again.
 */
export class SharedFiles implements Pick<ReadableLogDisk, 'openLogFile'>, AsyncDisposable {
  readonly #disk: Pick<ReadableLogDisk, 'openLogFile'>;
  /** By path; those that were used last come last. */
  readonly #open = new Map<string, Shared>();

  constructor(disk: Pick<ReadableLogDisk, 'openLogFile'>) {
    this.#disk = disk;
  }

  /** To be closed by who asked; others continue with it. */
  async openLogFile(path: string): Promise<LogFile> {
    const shared = this.#open.get(path) ?? { file: this.#disk.openLogFile(path), readers: 0 };
    this.#open.delete(path);
    this.#open.set(path, shared);
    shared.readers++;
    let isOpen = true;
    const close = async () => {
      if (isOpen) shared.readers--;
      isOpen = false;
      await this.#closeUnused(KEPT_MAX);
    };
    try {
      return { ...(await shared.file), close };
    } catch (error) {
      shared.readers--;
      if (this.#open.get(path) === shared) this.#open.delete(path);
      throw error;
    }
  }

  /** Nobody reads any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closeUnused(0);
  }

  async #closeUnused(keptMax: number): Promise<void> {
    for (const [path, { file, readers }] of this.#open) {
      if (this.#open.size <= keptMax) return;
      if (readers > 0) continue;
      this.#open.delete(path);
      await (await file).close();
    }
  }
}
