import type { LogFile, ReadableLogDisk } from './ports.ts';

/** Maximum number of unused files that stay open: in a log of 256 MiB, three of four. */
const KEPT_MAX = 12;

interface Shared {
  readonly file: Promise<LogFile>;
  readers: number;
}

/**
 * Segments open for reading, one descriptor for each. Opening a project reads a few hundred bytes, which
 * takes less time than opening a file. A segment keeps its file for good, even when it is reused.
 */
export class SharedFiles implements Pick<ReadableLogDisk, 'openLogFile'>, AsyncDisposable {
  readonly #disk: Pick<ReadableLogDisk, 'openLogFile'>;
  /** By path, least recently used first. */
  readonly #open = new Map<string, Shared>();

  constructor(disk: Pick<ReadableLogDisk, 'openLogFile'>) {
    this.#disk = disk;
  }

  /** Each caller must close the file; the other callers keep it open. */
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

  /** The caller has ended all reads. */
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
