import { join } from 'node:path';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import { type DueProject, type ExpiryMarks, SWEEP_INTERVAL_MS } from '../../projects/expiry-marks.ts';
import type { Disk } from '../disk/disk.ts';

/** An empty file in the project's folder (docs/formats/expiry-mark.md). */
const EXPIRY_FILE = 'expires-1';

export interface ExpiryMarksInFoldersOptions {
  readonly disk: Disk;
  /** `<data>/projects`; exists. */
  readonly directory: string;
  readonly clock: Clock;
}

/**
 * Marks as files in the folders of projects. Due times exist only in memory; a start spreads them over the
 * hour.
 */
export class ExpiryMarksInFolders implements ExpiryMarks {
  readonly #options: ExpiryMarksInFoldersOptions;
  /** By project: the due time on the monotonic clock, and the number of the turn. */
  readonly #turns = new Map<string, { readonly dueMs: number; readonly turn: number }>();
  #lastTurn = 0;
  readonly #writing = new KeyedMutex();
  #found: Promise<void> | undefined;

  constructor(options: ExpiryMarksInFoldersOptions) {
    this.#options = options;
  }

  mark(project: string): Promise<void> {
    // Before the write, so that a concurrent `unmark` sees the new turn.
    this.#delay(project, SWEEP_INTERVAL_MS);
    return this.#write(project);
  }

  ensureMarked(project: string): Promise<void> {
    if (!this.#turns.has(project)) this.#delay(project, SWEEP_INTERVAL_MS);
    return this.#write(project);
  }

  async take(): Promise<DueProject | undefined> {
    await this.#find();
    const nowMs = this.#options.clock.monotonic();
    // The project that has been due longest, so that each has its turn under overload.
    let project: string | undefined;
    let earliestMs = nowMs;
    for (const [name, { dueMs }] of this.#turns) {
      if (dueMs > earliestMs || (project !== undefined && dueMs === earliestMs)) continue;
      project = name;
      earliestMs = dueMs;
    }
    if (project === undefined) return undefined;
    return { project, turn: this.#delay(project, SWEEP_INTERVAL_MS) };
  }

  async reschedule({ project, turn }: DueProject, afterMs: number): Promise<void> {
    if (this.#turns.get(project)?.turn === turn) this.#delay(project, afterMs);
  }

  unmark({ project, turn }: DueProject): Promise<void> {
    return this.#writing.run(project, async () => {
      if (this.#turns.get(project)?.turn !== turn) return;
      this.#turns.delete(project);
      const { disk, directory } = this.#options;
      const folder = join(directory, project);
      if (await disk.remove(join(folder, EXPIRY_FILE))) await disk.syncDirectory(folder);
    });
  }

  #write(project: string): Promise<void> {
    return this.#writing.run(project, async () => {
      const { disk, directory } = this.#options;
      const folder = join(directory, project);
      if ((await disk.list(folder))?.includes(EXPIRY_FILE)) return;
      await disk.createFile(join(folder, EXPIRY_FILE), Buffer.alloc(0));
      await disk.syncDirectory(folder);
    });
  }

  /** Sets the project's next due time. @returns the number of that turn. */
  #delay(project: string, afterMs: number): number {
    const turn = ++this.#lastTurn;
    this.#turns.set(project, { dueMs: this.#options.clock.monotonic() + afterMs, turn });
    return turn;
  }

  /** Finds the marks of earlier processes, once. */
  #find(): Promise<void> {
    this.#found ??= this.#readAll().catch((error: unknown) => {
      this.#found = undefined;
      throw error;
    });
    return this.#found;
  }

  async #readAll(): Promise<void> {
    const { disk, directory } = this.#options;
    const marked: string[] = [];
    for (const name of (await disk.list(directory)) ?? []) {
      if (projectIdSchema.safeParse(name).data !== name) continue;
      // A folder that cannot be listed fails when its project is opened.
      const content = await disk.list(join(directory, name)).catch(() => undefined);
      if (content?.includes(EXPIRY_FILE)) marked.push(name);
    }
    for (const [at, project] of marked.entries())
      if (!this.#turns.has(project)) this.#delay(project, (SWEEP_INTERVAL_MS * (at + 1)) / marked.length);
  }
}
