import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { Backlog } from './backlog.ts';
import type { Disk } from './disk.ts';

/** What is to become of a document file: new sealed bytes, or nothing. */
interface Wish {
  readonly sealed: Buffer | undefined;
  /** Counts the wishes, so that a flush waits for those before it alone. */
  readonly number: number;
}

/** A flush under way: the wishes it waits for. */
interface Flush {
  readonly upTo: number;
  left: number;
  readonly done: PromiseWithResolvers<void>;
}

export interface FileWriterOptions {
  readonly disk: Disk;
  /** The project's `docs` folder; exists. */
  readonly directory: string;
  /** Shared with the writers of other projects. */
  readonly backlog: Backlog;
  /** Told of a failure other than a full disk; nothing is written any more afterwards. */
  readonly onFailure: (error: unknown) => void;
}

/** Enough for the disk to take many at a time; the backlog is bounded by bytes. */
const WRITES_AT_ONCE = 64;
/** How long after a full disk it is tried again, milliseconds. */
const FULL_RETRY_MS = 500;

/**
 * Brings document files after the journal: commits are durable there, so files are written in the background, in place, in
 * any order, and an overwrite that has not been written yet is simply replaced by the next. A file that a crash tears is
 * written again from the journal.
 */
export class FileWriter {
  readonly #options: FileWriterOptions;
  /** Latest wish of each file that is not on the disk yet, by name. */
  readonly #wishes = new Map<string, Wish>();
  /** Names whose files are being written now. */
  readonly #writing = new Set<string>();
  /** Paths that were written and not synced yet. */
  #unsynced = new Set<string>();
  #wishCount = 0;
  #backlogBytes = 0;
  #flush: Flush | undefined;
  #idle: PromiseWithResolvers<void> | undefined;
  #roomy: PromiseWithResolvers<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  /** Set while the disk is full: the next try. */
  #retry: NodeJS.Timeout | undefined;
  #full = false;

  constructor(options: FileWriterOptions) {
    this.#options = options;
  }

  /** True from a full disk until the next content that could be written. */
  get full(): boolean {
    return this.#full;
  }

  /** Sealed bytes that are committed and not in their file yet. */
  pending(fileName: string): Buffer | undefined {
    return this.#wishes.get(fileName)?.sealed;
  }

  /** Wishes for a file's content. Later wishes replace earlier ones. */
  put(fileName: string, sealed: Buffer): void {
    this.#wish(fileName, sealed);
  }

  /** Wishes that a file be gone. */
  remove(fileName: string): void {
    this.#wish(fileName, undefined);
  }

  /**
   * Resolves at once unless too much is waiting; a project of which nothing waits does not wait for others.
   *
   * @throws AppError `disk_full` when that cannot become less.
   */
  async room(): Promise<void> {
    const { backlog } = this.#options;
    while (backlog.isFull && this.#backlogBytes > 0 && this.#failure === undefined) {
      if (this.#retry !== undefined) throw new AppError('disk_full');
      if (this.#roomy === undefined) {
        this.#roomy = Promise.withResolvers();
        backlog.whenRoomy(this.#wakeRoomy);
      }
      await this.#roomy.promise;
    }
  }

  readonly #wakeRoomy = (): void => {
    this.#roomy?.resolve();
    this.#roomy = undefined;
  };

  /**
   * Resolves once every wish so far is on the disk and durable, or replaced by a later one. One flush at a time.
   *
   * @throws what the disk threw, `disk_full` at once.
   */
  async flush(): Promise<void> {
    if (this.#retry !== undefined) throw new AppError('disk_full');
    const flush: Flush = { upTo: this.#wishCount, left: this.#wishes.size, done: Promise.withResolvers() };
    if (flush.left > 0 && this.#failure === undefined) {
      this.#flush = flush;
      await flush.done.promise.finally(() => {
        this.#flush = undefined;
      });
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    const paths = this.#unsynced;
    this.#unsynced = new Set();
    try {
      await this.#options.disk.syncFiles([...paths]);
      // Folders may have been made for them, by this process or by one before it that did not come to sync them.
      await this.#options.disk.syncDirectory(this.#options.directory);
    } catch (error) {
      // Whether a file that failed to sync is whole is not known, and a second sync would not tell.
      this.#fail(error);
      throw error;
    }
  }

  /** Resolves once nothing is being written; what still waits is given up. It is in the journal. */
  async stop(): Promise<void> {
    this.#failure ??= { error: new Error('the writer was stopped') };
    this.#flush?.done.resolve();
    clearTimeout(this.#retry);
    while (this.#writing.size > 0) {
      this.#idle ??= Promise.withResolvers();
      await this.#idle.promise;
    }
    this.#count(-this.#backlogBytes);
  }

  #count(bytes: number): void {
    this.#backlogBytes += bytes;
    this.#options.backlog.add(bytes);
  }

  #wish(fileName: string, sealed: Buffer | undefined): void {
    const former = this.#wishes.get(fileName);
    this.#count((sealed?.length ?? 0) - (former?.sealed?.length ?? 0));
    this.#wishes.set(fileName, { sealed, number: ++this.#wishCount });
    if (former !== undefined) this.#settled(former);
    this.#start(fileName);
  }

  /** A wish is fulfilled or replaced. */
  #settled({ number }: Wish): void {
    const flush = this.#flush;
    if (flush === undefined || number > flush.upTo) return;
    if (--flush.left === 0) flush.done.resolve();
  }

  /** Begins to write a file, unless it must wait. A full disk holds up contents, and lets files be removed. */
  #start(fileName: string): void {
    const holdsContent = this.#wishes.get(fileName)?.sealed !== undefined;
    if (this.#failure !== undefined || (this.#retry !== undefined && holdsContent)) return;
    if (this.#writing.size >= WRITES_AT_ONCE || this.#writing.has(fileName)) return;
    this.#writing.add(fileName);
    void this.#write(fileName);
  }

  async #write(fileName: string): Promise<void> {
    const wish = this.#wishes.get(fileName);
    let done = false;
    try {
      if (wish !== undefined) await this.#fulfil(fileName, wish);
      done = true;
    } catch (error) {
      if (hasCode(error, 'disk_full')) this.#waitForSpace();
      else this.#fail(error);
    }
    this.#writing.delete(fileName);
    if (done && wish !== undefined && this.#wishes.get(fileName) === wish) {
      this.#wishes.delete(fileName);
      this.#count(-(wish.sealed?.length ?? 0));
      this.#settled(wish);
    }
    this.#next();
  }

  async #fulfil(fileName: string, wish: Wish): Promise<void> {
    const { disk } = this.#options;
    const path = join(this.#options.directory, fileName.slice(0, 2), fileName);
    if (wish.sealed === undefined) {
      await disk.remove(path);
      // Even if there was none: a process that was killed may have removed it and not synced its folder.
      this.#unsynced.add(path);
      return;
    }
    await disk.writeFile(path, wish.sealed);
    this.#full = false;
    this.#unsynced.add(path);
  }

  /** Starts what waits, and wakes who waits. */
  #next(): void {
    for (const fileName of this.#wishes.keys()) {
      if (this.#writing.size >= WRITES_AT_ONCE) break;
      this.#start(fileName);
    }
    // Who waits for room is told when there is none to be expected, or nothing of this project left to wait for.
    if (this.#failure !== undefined || this.#retry !== undefined || this.#backlogBytes === 0)
      this.#wakeRoomy();
    if (this.#writing.size === 0) {
      this.#idle?.resolve();
      this.#idle = undefined;
    }
  }

  #waitForSpace(): void {
    this.#full = true;
    this.#flush?.done.reject(new AppError('disk_full'));
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#next();
    }, FULL_RETRY_MS).unref();
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error };
    this.#flush?.done.resolve();
    this.#wakeRoomy();
    this.#options.onFailure(error);
  }
}
