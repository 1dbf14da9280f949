import { AppError } from '@bundoc/shared/contract/app-error';
import type { Backlog } from './backlog.ts';
import { documentPath } from './document-files.ts';

/** A document file that is to be written, or removed when there are no bytes. */
export interface PendingWrite {
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

/** Needs a file's content before it is replaced. */
export interface FileReader {
  read(): Promise<unknown>;
}

/** What the files of a project need from the writer. */
export interface WritingPort {
  readonly backlog: Backlog;
  isFull(): boolean;
  start(files: ProjectFiles): void;
}

/** Memory that a file's name takes until a sync. */
const UNSYNCED_NAME_BYTES = 64;

/** The document files of one project that are behind the log, or not durable yet. */
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
  /** Reads of files for snapshots, which come before the next write of the file. */
  readonly #reads = new Map<string, FileReader>();
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

  /** Whether a caller waits for the pending writes. */
  get isAwaited(): boolean {
    return this.#waits.size > 0;
  }

  /** Sealed bytes that are committed and not in their file yet. */
  pending(fileName: string): Buffer | undefined {
    return this.pendingWrites.get(fileName)?.sealed;
  }

  /** Queues the write of a file. A later content replaces one that is still pending. */
  put(fileName: string, sealed: Buffer): void {
    this.#enqueue(fileName, sealed);
  }

  /**
   * Has a file read before its next write or removal. Its present content must not be pending. The reader may
   * read twice, and its failure prevents nothing.
   */
  readBeforeWriting(fileName: string, reader: FileReader): void {
    this.#reads.set(fileName, reader);
  }

  /** A reader no longer needs the content of a file. */
  forgetRead(fileName: string, reader: FileReader): void {
    if (this.#reads.get(fileName) === reader) this.#reads.delete(fileName);
  }

  /** For the writer: the read that comes before a write of a file. */
  takeRead(fileName: string): FileReader | undefined {
    if (this.#reads.size === 0) return undefined;
    const reader = this.#reads.get(fileName);
    this.#reads.delete(fileName);
    return reader;
  }

  /** Queues the removal of a file. */
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
    // A removal, too, even of an absent file: a killed process may have removed it without a sync of its
    // folder.
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
