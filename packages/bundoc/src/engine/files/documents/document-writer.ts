import type { AppError } from '@bundoc/shared/contract/app-error';
import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import { AT_ONCE, type Disk } from '../disk/disk.ts';
import type { Backlog } from './backlog.ts';
import { type PendingWrite, ProjectFiles, type WritingPort } from './project-files.ts';

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
/** How long after a full disk the next try comes, milliseconds. */
const FULL_RETRY_MS = 500;

/**
 * Writes the document files of all projects of a data folder, in the background. Commits are durable in the
 * log, so files are written in place and in any order, and a later content replaces one that still waits. A
 * file that a crash tears is written again from the log. Projects take turns.
 *
 * It outlives the stores: it still writes the files of a closed project, so that the next opening need not.
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
    // Files whose write has failed are written again from the log.
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
      // The blocked writes were deleted or given up. The next content shows whether the disk is still full.
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
    const reads = queued.flatMap(({ files, fileName }) => files.takeRead(fileName) ?? []);
    if (reads.length > 0)
      await forEachConcurrently(reads, AT_ONCE, async (reader) => {
        // A snapshot that needs the content fails when it reads it.
        await reader.read().catch(() => undefined);
      });
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
