import { AppError } from '@bundoc/shared/errors';
import type { Backlog } from './backlog.ts';
import type { Disk } from './disk.ts';
import { documentPath } from './document-files.ts';

/** What is to become of a document file: new sealed bytes, or nothing. */
interface Wish {
  readonly sealed: Buffer | undefined;
  /** Counts the wishes of a project, so that a wait is for those before it alone. */
  readonly number: number;
}

/** Somebody waits until the wishes up to one are fulfilled or replaced. */
interface Wait {
  readonly upTo: number;
  left: number;
  readonly done: PromiseWithResolvers<void>;
}

export interface DocumentWriterOptions {
  readonly disk: Pick<Disk, 'writeFiles'>;
  readonly backlog: Backlog;
  /** Has the retry on a full disk wait. */
  readonly later?: (task: () => void, ms: number) => NodeJS.Timeout;
}

/** Files of one round, and their bytes beyond the first: a round takes milliseconds, so that closing waits no longer. */
const ROUND_FILES_MAX = 256;
const ROUND_BYTES_MAX = 4_194_304;
/** Files of one project in a round while others wait. */
const TURN_FILES_MAX = 32;
/** How long after a full disk it is tried again, milliseconds. */
const FULL_RETRY_MS = 500;

/**
 * Brings document files after the log, of all projects of a data folder: commits are durable there, so files are written in the background, in
 * place, in any order, and an overwrite that has not been written yet is simply replaced by the next. A file that a crash tears is
 * written again from the log. Projects take turns.
 *
 * It outlives the stores: what a closed project left is still written, and its next opening need not write it again.
 */
export class DocumentWriter {
  readonly #options: DocumentWriterOptions;
  readonly #projects = new Map<string, ProjectFiles>();
  /** Projects with wishes, in their turn. */
  readonly #turns = new Set<ProjectFiles>();
  readonly #writing: WritingPort;
  #round: Promise<void> | undefined;
  /** Set while the disk is full: the next try. */
  #retry: NodeJS.Timeout | undefined;
  #full = false;
  #isStopped = false;

  constructor(options: DocumentWriterOptions) {
    this.#options = options;
    this.#writing = {
      backlog: options.backlog,
      isFull: () => this.#full,
      start: (files) => {
        this.#turns.add(files);
        this.#start();
      },
    };
  }

  /** True from a full disk until the next content that could be written. */
  get full(): boolean {
    return this.#full;
  }

  /** The files of a project. */
  of(project: string, directory: string): ProjectFiles {
    let files = this.#projects.get(project);
    if (files === undefined) {
      files = new ProjectFiles(directory, this.#writing);
      this.#projects.set(project, files);
    }
    return files;
  }

  /**
   * Gives up what waits of a project: it is in the log, or is to be gone. The next who asks for its files begins anew. Once resolved, none of
   * them is being written.
   */
  async drop(project: string): Promise<void> {
    const files = this.#projects.get(project);
    if (files === undefined) return;
    this.#projects.delete(project);
    this.#turns.delete(files);
    files.giveUp(new Error('the files of the project were given up'));
    await this.#round;
  }

  /** Forgets a project of which nothing waits, so that its next opening writes again what the log has. */
  dropWritten(project: string): void {
    if (this.#projects.get(project)?.wishes.size === 0) this.#projects.delete(project);
  }

  /** Forgets a project of which nothing waits and everything is durable. */
  forget(project: string): void {
    if (this.#projects.get(project)?.isClean === true) this.#projects.delete(project);
  }

  /** Resolves once nothing is being written; what still waits is given up. It is in the log. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#retry);
    await this.#round;
    for (const project of [...this.#projects.keys()]) await this.drop(project);
  }

  /** Begins a round, unless one is under way. Never throws. */
  #start(): void {
    if (this.#round !== undefined || this.#isStopped) return;
    const wishes = this.#nextWishes();
    if (wishes.length === 0) {
      // What a full disk held up was deleted or given up meanwhile: the next content finds out.
      if (this.#retry === undefined) this.#full = false;
      return;
    }
    this.#round = this.#write(wishes).finally(() => {
      this.#round = undefined;
      this.#start();
    });
  }

  /** Wishes for one round, of each project those that wait longest. A full disk holds up contents, and lets files be removed. */
  #nextWishes(): Asked[] {
    const next: Asked[] = [];
    const onlyRemovals = this.#retry !== undefined;
    let bytes = 0;
    for (const files of [...this.#turns]) {
      if (next.length >= ROUND_FILES_MAX || bytes >= ROUND_BYTES_MAX) break;
      this.#turns.delete(files);
      const max = this.#turns.size === 0 ? ROUND_FILES_MAX : TURN_FILES_MAX;
      let taken = 0;
      for (const [fileName, wish] of files.wishes) {
        if (taken === max || bytes >= ROUND_BYTES_MAX) break;
        if (onlyRemovals && wish.sealed !== undefined) continue;
        next.push({ files, fileName, wish });
        bytes += wish.sealed?.length ?? 0;
        taken++;
      }
      // Behind the others; whose wishes are all being written now is found to have none the next time.
      if (files.wishes.size > 0 && !onlyRemovals) this.#turns.add(files);
    }
    return next;
  }

  async #write(asked: readonly Asked[]): Promise<void> {
    const changes = asked.map(({ files, fileName, wish }) => ({
      path: files.pathOf(fileName),
      content: wish.sealed,
    }));
    let outcomes: readonly (AppError | undefined)[];
    try {
      outcomes = await this.#options.disk.writeFiles(changes);
    } catch (error) {
      for (const { files } of asked) files.fail(error);
      return;
    }
    for (const [at, { files, fileName, wish }] of asked.entries()) {
      const error = outcomes[at];
      if (error === undefined) {
        if (wish.sealed !== undefined) this.#full = false;
        files.written(fileName, wish);
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
      for (const files of this.#projects.values()) if (files.wishes.size > 0) this.#turns.add(files);
      this.#start();
    }, FULL_RETRY_MS);
  }
}

interface Asked {
  readonly files: ProjectFiles;
  readonly fileName: string;
  readonly wish: Wish;
}

/** What the files of a project need of the writer. */
interface WritingPort {
  readonly backlog: Backlog;
  isFull(): boolean;
  start(files: ProjectFiles): void;
}

/** The document files of one project that are behind the log, or not known to be durable. */
export class ProjectFiles {
  /** Latest wish of each file that is not on the disk yet, by name; for the writer. */
  readonly wishes = new Map<string, Wish>();
  /** Told of a failure other than a full disk; nothing is written any more afterwards. Of the store that is open. */
  onFailure: ((error: unknown) => void) | undefined;
  /** Whether everything that the log has of the project is here, or in its file: then an opening need not write it again. */
  isUpToDate = false;
  readonly #directory: string;
  readonly #writing: WritingPort;
  /** Names of files that were written and not synced yet. */
  #unsynced = new Set<string>();
  readonly #waits = new Set<Wait>();
  #wishCount = 0;
  #backlogBytes = 0;
  #roomy: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(directory: string, writing: WritingPort) {
    this.#directory = directory;
    this.#writing = writing;
  }

  /** Nothing waits, and all is durable. */
  get isClean(): boolean {
    return this.wishes.size === 0 && this.#unsynced.size === 0 && this.#failure === undefined;
  }

  get isFull(): boolean {
    return this.#writing.isFull();
  }

  /** Sealed bytes that are committed and not in their file yet. */
  pending(fileName: string): Buffer | undefined {
    return this.wishes.get(fileName)?.sealed;
  }

  /** Wishes for a file's content. Later wishes replace earlier ones. */
  put(fileName: string, sealed: Buffer): void {
    this.#wish(fileName, sealed);
  }

  /** Wishes that a file be gone. */
  remove(fileName: string): void {
    this.#wish(fileName, undefined);
  }

  /** False while too much waits; a project of which nothing waits does not wait for others. */
  get isRoomy(): boolean {
    return !this.#writing.backlog.isFull || this.#backlogBytes === 0 || this.#failure !== undefined;
  }

  /** Calls `wake` once, when there may be room. */
  whenRoomy(wake: () => void): void {
    if (this.#roomy === undefined) this.#writing.backlog.whenRoomy(this.#wakeRoomy);
    this.#roomy = wake;
  }

  readonly #wakeRoomy = (): void => {
    const wake = this.#roomy;
    this.#roomy = undefined;
    wake?.();
  };

  /**
   * Resolves once every wish so far is on the disk, or replaced by a later one that is.
   *
   * @throws what the disk threw, `disk_full` at once.
   */
  async whenWritten(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.wishes.size === 0) return;
    if (this.isFull) throw new AppError('disk_full');
    const wait: Wait = { upTo: this.#wishCount, left: this.wishes.size, done: Promise.withResolvers() };
    this.#waits.add(wait);
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

  /** For the writer: a file has what was wished. */
  written(fileName: string, wish: Wish): void {
    // A removal too, even of what was not there: a process that was killed may have removed it and not synced its folder.
    this.#unsynced.add(fileName);
    if (this.wishes.get(fileName) !== wish) return;
    this.wishes.delete(fileName);
    this.#count(-(wish.sealed?.length ?? 0));
    this.#settled(wish);
    if (this.#backlogBytes === 0) this.#wakeRoomy();
  }

  /** For the writer: nobody waits for what a full disk holds up. */
  diskIsFull(): void {
    for (const { done } of this.#waits) done.reject(new AppError('disk_full'));
    this.#waits.clear();
    this.#wakeRoomy();
  }

  /** Nothing is written any more: it is not known what is in the files. */
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
    this.wishes.clear();
    for (const { done } of this.#waits) done.reject(error);
    this.#waits.clear();
    this.#wakeRoomy();
  }

  #wish(fileName: string, sealed: Buffer | undefined): void {
    if (this.#failure !== undefined) return;
    const former = this.wishes.get(fileName);
    this.#count((sealed?.length ?? 0) - (former?.sealed?.length ?? 0));
    // Behind the others, so that those that wait longest are written first.
    this.wishes.delete(fileName);
    this.wishes.set(fileName, { sealed, number: ++this.#wishCount });
    if (former !== undefined) this.#replaced(former);
    this.#writing.start(this);
  }

  #count(bytes: number): void {
    this.#backlogBytes += bytes;
    this.#writing.backlog.add(bytes);
  }

  /** Who waits for a wish that was replaced waits for the one in its place: the file must have that state, or a later one. */
  #replaced(former: Wish): void {
    for (const wait of this.#waits) if (former.number <= wait.upTo) this.#end(wait);
  }

  #settled(wish: Wish): void {
    for (const wait of this.#waits) if (wish.number <= wait.upTo) this.#end(wait);
  }

  #end(wait: Wait): void {
    if (--wait.left > 0) return;
    this.#waits.delete(wait);
    wait.done.resolve();
  }
}
