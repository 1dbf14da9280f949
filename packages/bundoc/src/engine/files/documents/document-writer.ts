import { AppError } from '@bundoc/shared/contract/app-error';
import type { Disk } from '../disk/disk.ts';
import type { Backlog } from './backlog.ts';
import { documentPath } from './document-files.ts';

/** A document file that is to be written, or removed when there are no bytes. */
interface PendingWrite {
  readonly sealed: Buffer | undefined;
  /** Position among the writes of the project: a wait covers those up to its own. */
  readonly number: number;
}

/** A caller that waits until the writes up to one are done or replaced. */
interface Wait {
  readonly upTo: number;
  left: number;
  readonly done: PromiseWithResolvers<void>;
}

export interface DocumentWriterOptions {
  readonly disk: Pick<Disk, 'writeFiles'>;
  readonly backlog: Backlog;
  /** Schedules the retry after a full disk; `setTimeout` by default. */
  readonly later?: (task: () => void, ms: number) => NodeJS.Timeout;
}

/**
 * Files of one round, and their bytes beyond the first. A round takes milliseconds, which bounds how long
 * closing waits.
 */
const ROUND_FILES_MAX = 256;
const ROUND_BYTES_MAX = 4_194_304;
/** Files of one project in a round while others wait. */
const TURN_FILES_MAX = 32;
/** Memory that a file's name takes until a sync. */
const UNSYNCED_NAME_BYTES = 64;
/** How long after a full disk the next try comes, milliseconds. */
const FULL_RETRY_MS = 500;

/**
 * Writes the document files of all projects of a data folder, in the background. Commits are durable in the
 * log, so files are written in place and in any order, and a later content replaces one that still waits. A
 * file that a crash tears is written again from the log. Projects take turns.
 *
 * It outlives the stores: it still writes what a closed project left, so the next opening need not.
 *
 * One class, because rounds, turns and retries choose from the same projects.
 */
export class DocumentWriter {
  readonly #options: DocumentWriterOptions;
  readonly #projects = new Map<string, ProjectFiles>();
  /** Projects with pending writes, in the order of their turns. */
  readonly #turns = new Set<ProjectFiles>();
  /** Those of them that somebody waits for. They come first. */
  readonly #awaited = new Set<ProjectFiles>();
  readonly #writing: WritingPort;
  #round: Promise<void> | undefined;
  /** The next try, while the disk is full. */
  #retry: NodeJS.Timeout | undefined;
  #full = false;
  #isStopped = false;

  constructor(options: DocumentWriterOptions) {
    this.#options = options;
    this.#writing = {
      backlog: options.backlog,
      isFull: () => this.#full,
      start: (files) => {
        (files.isAwaited ? this.#awaited : this.#turns).add(files);
        this.#start();
      },
    };
  }

  /** True from a full disk until a content can be written. */
  get full(): boolean {
    return this.#full;
  }

  /** The files of a project. */
  of(project: string, directory: string): ProjectFiles {
    let files = this.#projects.get(project);
    // What has failed is written again from the log.
    if (files === undefined || files.hasFailed) {
      files = new ProjectFiles(directory, this.#writing);
      this.#projects.set(project, files);
    }
    return files;
  }

  /**
   * Gives up the pending writes of a project: the log has them, or the project is being removed. The next
   * {@link of} starts from nothing. Once resolved, none of its files is being written.
   */
  async drop(project: string): Promise<void> {
    const files = this.#projects.get(project);
    if (files === undefined) return;
    this.#projects.delete(project);
    this.#turns.delete(files);
    this.#awaited.delete(files);
    files.giveUp(new Error('the files of the project were given up'));
    await this.#round;
  }

  /** Forgets a project without pending writes. Its next opening writes again what the log has. */
  dropWritten(project: string): void {
    if (this.#projects.get(project)?.pendingWrites.size === 0) this.#projects.delete(project);
  }

  /** Forgets a project without pending writes whose files are all durable. */
  forget(project: string): void {
    if (this.#projects.get(project)?.isClean === true) this.#projects.delete(project);
  }

  /** Gives up all pending writes, which the log has. Resolves once nothing is being written. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#retry);
    await this.#round;
    for (const project of [...this.#projects.keys()]) await this.drop(project);
  }

  /** Begins a round, unless one is under way. Never throws. */
  #start(): void {
    if (this.#round !== undefined || this.#isStopped) return;
    const pendingWrites = this.#nextWrites();
    if (pendingWrites.length === 0) {
      // What a full disk held up was deleted or given up meanwhile: the next content finds out.
      if (this.#retry === undefined) this.#full = false;
      return;
    }
    this.#round = this.#write(pendingWrites).finally(() => {
      this.#round = undefined;
      this.#start();
    });
  }

  /** May be read on while projects are taken out of their turns. */
  *#inTurn(): Generator<ProjectFiles> {
    yield* this.#awaited;
    yield* this.#turns;
  }

  /** The writes of one round: of each project those that wait longest. On a full disk only removals. */
  #nextWrites(): QueuedWrite[] {
    const next: QueuedWrite[] = [];
    const onlyRemovals = this.#retry !== undefined;
    let bytes = 0;
    const again: ProjectFiles[] = [];
    for (const files of this.#inTurn()) {
      if (next.length >= ROUND_FILES_MAX || bytes >= ROUND_BYTES_MAX) break;
      this.#turns.delete(files);
      this.#awaited.delete(files);
      const others = this.#turns.size + this.#awaited.size + again.length;
      const max = others === 0 ? ROUND_FILES_MAX : TURN_FILES_MAX;
      let taken = 0;
      for (const [fileName, write] of files.pendingWrites) {
        if (taken === max || bytes >= ROUND_BYTES_MAX) break;
        if (onlyRemovals && write.sealed !== undefined) continue;
        next.push({ files, fileName, write });
        bytes += write.sealed?.length ?? 0;
        taken++;
      }
      // Behind the others. If all its writes are in this round, the next round finds none.
      if (files.pendingWrites.size > 0 && !onlyRemovals) again.push(files);
    }
    for (const files of again) (files.isAwaited ? this.#awaited : this.#turns).add(files);
    return next;
  }

  async #write(queued: readonly QueuedWrite[]): Promise<void> {
    const changes = queued.map(({ files, fileName, write }) => ({
      path: files.pathOf(fileName),
      content: write.sealed,
    }));
    let outcomes: readonly (AppError | undefined)[];
    try {
      outcomes = await this.#options.disk.writeFiles(changes);
    } catch (error) {
      for (const { files } of queued) files.fail(error);
      return;
    }
    for (const [at, { files, fileName, write }] of queued.entries()) {
      const error = outcomes[at];
      if (error === undefined) {
        if (write.sealed !== undefined) this.#full = false;
        files.written(fileName, write);
      } else if (error.code === 'disk_full') this.#waitForSpace();
      else files.fail(error);
    }
  }

  #waitForSpace(): void {
    this.#full = true;
    for (const files of this.#projects.values()) files.diskIsFull();
    const later = this.#options.later ?? ((task, ms) => setTimeout(task, ms).unref());
    this.#retry ??= later(() => {
      this.#retry = undefined;
      // Only a content that was written shows that there is room: where none waits, nothing would show it.
      this.#full = this.#projects.values().some((files) => files.hasPendingContent);
      for (const files of this.#projects.values()) if (files.pendingWrites.size > 0) this.#turns.add(files);
      this.#start();
    }, FULL_RETRY_MS);
  }
}

interface QueuedWrite {
  readonly files: ProjectFiles;
  readonly fileName: string;
  readonly write: PendingWrite;
}

/** What the files of a project need from the writer. */
interface WritingPort {
  readonly backlog: Backlog;
  isFull(): boolean;
  start(files: ProjectFiles): void;
}

/**
 * The document files of one project that are behind the log, or not durable yet.
 *
 * One class, because the writes that stores queue and the writer takes are one list, with one failure.
 */
export class ProjectFiles {
  /** The latest content of each file that is not on the disk yet, by file name. For the writer. */
  readonly pendingWrites = new Map<string, PendingWrite>();
  /** Called with a failure other than a full disk, after which nothing is written. The open store sets it. */
  onFailure: ((error: unknown) => void) | undefined;
  /**
   * Whether everything that the log has of the project is pending here or in its file. An opening then writes
   * nothing again.
   */
  isUpToDate = false;
  readonly #directory: string;
  readonly #writing: WritingPort;
  /** Names of files that are written and not synced. */
  #unsynced = new Set<string>();
  readonly #waits = new Set<Wait>();
  #writeCount = 0;
  #backlogBytes = 0;
  #onCapacity: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(directory: string, writing: WritingPort) {
    this.#directory = directory;
    this.#writing = writing;
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  get hasPendingContent(): boolean {
    return this.pendingWrites.values().some(({ sealed }) => sealed !== undefined);
  }

  /** Whether no write is pending and all files are durable. */
  get isClean(): boolean {
    return this.pendingWrites.size === 0 && this.#unsynced.size === 0 && this.#failure === undefined;
  }

  /**
   * Bytes of memory, as an estimate, of the names that wait for a sync. The contents that wait are the
   * backlog's.
   */
  get memoryBytes(): number {
    return this.#unsynced.size * UNSYNCED_NAME_BYTES;
  }

  get isFull(): boolean {
    return this.#writing.isFull();
  }

  /** Whether somebody waits until what is pending is written. */
  get isAwaited(): boolean {
    return this.#waits.size > 0;
  }

  /** Sealed bytes that are committed and not in their file yet. */
  pending(fileName: string): Buffer | undefined {
    return this.pendingWrites.get(fileName)?.sealed;
  }

  /** Has a file written. A later content replaces one that is still pending. */
  put(fileName: string, sealed: Buffer): void {
    this.#enqueue(fileName, sealed);
  }

  /** Has a file removed. */
  remove(fileName: string): void {
    this.#enqueue(fileName, undefined);
  }

  /**
   * False while the backlog of all projects is full. For a project without pending bytes it has a reserve, so
   * that it does not wait for others.
   */
  get hasCapacity(): boolean {
    const { backlog } = this.#writing;
    const isFull = this.#backlogBytes === 0 ? backlog.isReserveFull : backlog.isFull;
    return !isFull || this.#failure !== undefined;
  }

  /** Calls `wake` once, when there may be capacity. */
  whenCapacity(wake: () => void): void {
    if (this.#onCapacity === undefined) this.#writing.backlog.whenCapacity(this.#wakeForCapacity);
    this.#onCapacity = wake;
  }

  readonly #wakeForCapacity = (): void => {
    const wake = this.#onCapacity;
    this.#onCapacity = undefined;
    wake?.();
  };

  /**
   * Resolves once every write so far is on the disk, or was replaced by a later one, which the log has.
   *
   * @throws what the disk threw, `disk_full` at once.
   */
  async whenWritten(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.pendingWrites.size === 0) return;
    if (this.isFull) throw new AppError('disk_full');
    const wait: Wait = {
      upTo: this.#writeCount,
      left: this.pendingWrites.size,
      done: Promise.withResolvers(),
    };
    this.#waits.add(wait);
    this.#writing.start(this);
    await wait.done.promise;
  }

  /** Paths of files that were written and not synced. The caller syncs them, or fails the project. */
  takeUnsynced(): string[] {
    const names = this.#unsynced;
    this.#unsynced = new Set();
    return Array.from(names, (fileName) => this.pathOf(fileName));
  }

  pathOf(fileName: string): string {
    return `${this.#directory}/${documentPath(fileName)}`;
  }

  /** For the writer: a file was written or removed. */
  written(fileName: string, write: PendingWrite): void {
    // A removal too, even of what was not there: a process that was killed may have removed it and not synced
    // its folder.
    this.#unsynced.add(fileName);
    if (this.pendingWrites.get(fileName) !== write) return;
    this.pendingWrites.delete(fileName);
    this.#count(-(write.sealed?.length ?? 0));
    this.#settled(write);
    if (this.#backlogBytes === 0) this.#wakeForCapacity();
  }

  /** For the writer: ends all waits, since a full disk holds up contents. */
  diskIsFull(): void {
    for (const { done } of this.#waits) done.reject(new AppError('disk_full'));
    this.#waits.clear();
    this.#wakeForCapacity();
  }

  /** Writes nothing more: what the files contain is unknown. */
  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.giveUp(error);
    this.onFailure?.(error);
  }

  giveUp(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error };
    this.isUpToDate = false;
    this.#count(-this.#backlogBytes);
    this.pendingWrites.clear();
    for (const { done } of this.#waits) done.reject(error);
    this.#waits.clear();
    this.#wakeForCapacity();
  }

  #enqueue(fileName: string, sealed: Buffer | undefined): void {
    if (this.#failure !== undefined) return;
    const former = this.pendingWrites.get(fileName);
    this.#count((sealed?.length ?? 0) - (former?.sealed?.length ?? 0));
    // Behind the others, so that those that wait longest are written first.
    this.pendingWrites.delete(fileName);
    this.pendingWrites.set(fileName, { sealed, number: ++this.#writeCount });
    if (former !== undefined) this.#replaced(former);
    this.#writing.start(this);
  }

  #count(bytes: number): void {
    const { backlog } = this.#writing;
    const had = this.#backlogBytes > 0;
    this.#backlogBytes += bytes;
    const has = this.#backlogBytes > 0;
    if (had !== has) backlog.countProject(has ? 1 : -1);
    backlog.add(bytes);
  }

  /**
   * Nobody need wait for a content that was replaced: the commit of the later one is in the log, behind any
   * checkpoint of now.
   */
  #replaced(former: PendingWrite): void {
    for (const wait of this.#waits) if (former.number <= wait.upTo) this.#end(wait);
  }

  #settled(write: PendingWrite): void {
    for (const wait of this.#waits) if (write.number <= wait.upTo) this.#end(wait);
  }

  #end(wait: Wait): void {
    if (--wait.left > 0) return;
    this.#waits.delete(wait);
    wait.done.resolve();
  }
}
