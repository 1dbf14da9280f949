import { AppError } from '@bundoc/shared/errors';
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

/** Files of one round, and their bytes beyond the first: a round takes milliseconds, so that closing waits no longer. */
const ROUND_FILES_MAX = 256;
const ROUND_BYTES_MAX = 4_194_304;
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
  /** The round of files that is being written now. */
  #round: Promise<void> | undefined;
  /** Names of files that were written and not synced yet; some twice. */
  #unsynced: string[] = [];
  #wishCount = 0;
  #backlogBytes = 0;
  #flush: Flush | undefined;
  #roomy: PromiseWithResolvers<void> | undefined;
  /** Rejects whoever waits for a flush. */
  readonly #unflushed = Promise.withResolvers<never>();
  #failure: { readonly error: unknown } | undefined;
  /** Set while the disk is full: the next try. */
  #retry: NodeJS.Timeout | undefined;
  #full = false;

  constructor(options: FileWriterOptions) {
    this.#options = options;
    this.#unflushed.promise.catch(() => undefined);
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

  /** True when {@link room} would resolve at once. */
  get isRoomy(): boolean {
    return !this.#options.backlog.isFull || this.#backlogBytes === 0 || this.#failure !== undefined;
  }

  /**
   * Resolves at once unless too much is waiting; a project of which nothing waits does not wait for others.
   *
   * @throws AppError `disk_full` when that cannot become less.
   */
  async room(): Promise<void> {
    const { backlog } = this.#options;
    while (!this.isRoomy) {
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
    await Promise.race([this.#flushAll(), this.#unflushed.promise]);
  }

  /** Ends a flush that is under way, and all that come, with an error: nobody waits for files any more, which are in the journal. */
  giveUpFlushes(): void {
    this.#unflushed.reject(new Error('nobody waits for the files any more'));
  }

  async #flushAll(): Promise<void> {
    if (this.#retry !== undefined) throw new AppError('disk_full');
    const flush: Flush = { upTo: this.#wishCount, left: this.#wishes.size, done: Promise.withResolvers() };
    if (flush.left > 0 && this.#failure === undefined) {
      this.#flush = flush;
      await flush.done.promise.finally(() => {
        this.#flush = undefined;
      });
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    const names = new Set(this.#unsynced);
    this.#unsynced = [];
    try {
      await this.#options.disk.syncFiles(Array.from(names, (fileName) => this.#pathOf(fileName)));
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
    await this.#round;
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
    this.#start();
  }

  /** A wish is fulfilled or replaced. */
  #settled({ number }: Wish): void {
    const flush = this.#flush;
    if (flush === undefined || number > flush.upTo) return;
    if (--flush.left === 0) flush.done.resolve();
  }

  /** Begins a round, unless one is under way. Never throws. */
  #start(): void {
    if (this.#round !== undefined || this.#failure !== undefined) return;
    const wishes = this.#nextWishes();
    if (wishes.length === 0) return;
    this.#round = this.#write(wishes).finally(() => {
      this.#round = undefined;
      this.#afterRound();
    });
  }

  /** Wishes for one round, those that wait longest first. A full disk holds up contents, and lets files be removed. */
  #nextWishes(): [string, Wish][] {
    const next: [string, Wish][] = [];
    let bytes = 0;
    for (const [fileName, wish] of this.#wishes) {
      if (next.length === ROUND_FILES_MAX || bytes >= ROUND_BYTES_MAX) break;
      if (this.#retry !== undefined && wish.sealed !== undefined) continue;
      next.push([fileName, wish]);
      bytes += wish.sealed?.length ?? 0;
    }
    return next;
  }

  async #write(wishes: readonly [string, Wish][]): Promise<void> {
    const files = wishes.map(([fileName, { sealed }]) => ({
      path: this.#pathOf(fileName),
      content: sealed,
    }));
    let outcomes: readonly (AppError | undefined)[];
    try {
      outcomes = await this.#options.disk.writeFiles(files);
    } catch (error) {
      this.#fail(error);
      return;
    }
    for (const [at, [fileName, wish]] of wishes.entries()) {
      const error = outcomes[at];
      if (error === undefined) this.#written(fileName, wish);
      else if (error.code === 'disk_full') this.#waitForSpace();
      else this.#fail(error);
    }
  }

  #pathOf(fileName: string): string {
    return `${this.#options.directory}/${fileName.slice(0, 2)}/${fileName}`;
  }

  #written(fileName: string, wish: Wish): void {
    // A removal too, even of what was not there: a process that was killed may have removed it and not synced its folder.
    this.#unsynced.push(fileName);
    if (wish.sealed !== undefined) this.#full = false;
    if (this.#wishes.get(fileName) !== wish) return;
    this.#wishes.delete(fileName);
    this.#count(-(wish.sealed?.length ?? 0));
    this.#settled(wish);
  }

  /** Wakes who waits for room when there is none to be expected, or nothing of this project left to wait for; goes on. */
  #afterRound(): void {
    if (this.#failure !== undefined || this.#retry !== undefined || this.#backlogBytes === 0)
      this.#wakeRoomy();
    this.#start();
  }

  #waitForSpace(): void {
    this.#full = true;
    this.#flush?.done.reject(new AppError('disk_full'));
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#start();
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
