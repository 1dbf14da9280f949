import { basename } from 'node:path';
import { AppError } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { OpenFolder } from '../move/folder-source.ts';
import { MoveFailed, type MoveWatch } from '../move/move-project.ts';
import { moveToDatabase } from '../move/to-database.ts';
import { handOver } from '../project/hand-over.ts';
import type { InstanceLease, InstanceManager } from '../project/instance-manager.ts';
import type { KeyCache } from '../project/key-cache.ts';
import { projectElsewhere } from '../project/move-mark.ts';
import { formatProjectFile } from '../project/project-file.ts';
import { markFolder, readMoveMark } from '../project/project-folder.ts';
import type { Connections } from '../storage/postgres/database.ts';
import { SchemaMismatch } from '../storage/postgres/migrate.ts';
import type { ProjectPlaceInFiles } from '../storage-parts.ts';
import type { ChangeFeed } from './change-feed.ts';

/** Moves that go on at a time. Each reads the whole of a project, and holds connections. */
const MOVES_MAX = 2;

export interface MovesOptions {
  readonly instances: Pick<InstanceManager, 'acquire' | 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly feed: Pick<ChangeFeed, 'end'>;
  readonly logger: Logger;
  /** Where a project lies in files; undefined where the storage is none. */
  readonly placeOf: ((project: string) => ProjectPlaceInFiles) | undefined;
  /** Where projects are moved to; undefined for a service that moves none. */
  readonly target: MoveDestination | undefined;
}

/** A database that projects are moved to. */
export interface MoveDestination {
  /** What it is called: host, port and database. */
  readonly place: string;
  /** Connects for one move. @throws AppError `storage_unavailable`; SchemaMismatch. */
  open(): Promise<Connections & AsyncDisposable>;
}

/** How far a move is: documents of so many are done in its present step, about. */
export interface MoveProgress {
  readonly step: 'copying' | 'verifying' | 'switching';
  readonly documents: number;
  readonly of: number;
}

/** A project that was moved. */
export interface Moved {
  readonly to: string;
  /** What was in the project's folder is kept in this one, below `moved` of the data folder. */
  readonly kept: string;
}

/** A move that goes on. */
export interface RunningMove {
  readonly progress: MoveProgress;
  /** Rejects with an AppError. Before it is settled, there is no other move of the project. */
  readonly outcome: Promise<Moved>;
  /** Ends it at its next step, unless the project is about to change hands. The next move goes on from there. */
  stop(reason: AppError): void;
}

/** Moves projects out of files into PostgreSQL while they are used; one of a project at a time. */
export class Moves {
  readonly #options: MovesOptions;
  readonly #running = new Map<string, RunningMove | undefined>();
  #isClosed = false;

  constructor(options: MovesOptions) {
    this.#options = options;
  }

  /**
   * Begins a move, or goes on with one that was cut short; one that is over is answered as it was.
   *
   * @throws AppError `move_refused` where the service moves none, `project_not_found`, `project_moving` for one that is being brought in, `rate_limited`
   * while enough are moved; those of the project.
   */
  async begin(project: string): Promise<RunningMove> {
    const { placeOf, target } = this.#options;
    if (placeOf === undefined || target === undefined)
      throw new AppError('move_refused', {
        detail: 'this service moves no projects: BUNDOC_MOVE_TO is not set',
      });
    if (this.#isClosed) throw stopping();
    if (this.#running.has(project) || this.#running.size >= MOVES_MAX)
      throw new AppError('rate_limited', { retryAfterS: 10, detail: 'another move is under way' });
    this.#running.set(project, undefined);
    try {
      const place = placeOf(project);
      await this.#requireMovable(project, place);
      if (this.#isClosed) throw stopping();
      const move = this.#run(project, place, target);
      this.#running.set(project, move);
      return move;
    } catch (error) {
      this.#running.delete(project);
      throw error;
    }
  }

  /** Ends all moves at their next step, and begins none any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const running = [...this.#running.values()].filter((move) => move !== undefined);
    for (const move of running) move.stop(stopping());
    await Promise.allSettled(running.map(({ outcome }) => outcome));
  }

  async #requireMovable(project: string, { disk, directory }: ProjectPlaceInFiles): Promise<void> {
    const mark = await readMoveMark(disk, project, directory);
    // What follows the change of hands may be missing.
    if (mark?.state === 'moved') return;
    if (mark !== undefined) throw projectElsewhere(mark);
    using lease = await this.#options.instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
  }

  #run(project: string, place: ProjectPlaceInFiles, target: MoveDestination): RunningMove {
    const { logger } = this.#options;
    const stop = new AbortController();
    let progress: MoveProgress = { step: 'copying', documents: 0, of: 0 };
    const show = (step: MoveProgress['step']) => (documents: number, of: number) => {
      // Between two steps: what was done stays, and is gone on from.
      stop.signal.throwIfAborted();
      progress = { step, documents, of };
    };
    const watch: MoveWatch = {
      onCopied: show('copying'),
      onVerified: show('verifying'),
      onSwitch: (isOver) => {
        if (!isOver) show('switching')(progress.documents, progress.of);
      },
    };
    const outcome = this.#move(project, place, target, watch, stop.signal)
      .then(
        (moved) => {
          logger.info({ project, ...moved }, 'a project was moved');
          return moved;
        },
        (error: unknown) => {
          logger.warn({ err: error, project, to: target.place }, 'a project could not be moved');
          throw refusalOf(error);
        },
      )
      .finally(() => this.#running.delete(project));
    outcome.catch(() => undefined);
    return {
      get progress() {
        return progress;
      },
      outcome,
      stop: (reason) => stop.abort(reason),
    };
  }

  async #move(
    project: string,
    place: ProjectPlaceInFiles,
    target: MoveDestination,
    watch: MoveWatch,
    stop: AbortSignal,
  ): Promise<Moved> {
    const { instances, feed, keys } = this.#options;
    const { directory, keptIn, disk, forget } = place;
    await using database = await target.open();
    const kept = await moveToDatabase(
      {
        ...{ project, directory, keptIn, disk, database },
        source: {
          withOpen: async (action) => {
            stop.throwIfAborted();
            using lease = await instances.acquire(project, 'existing');
            if (lease === undefined) throw new AppError('project_not_found');
            return await action(openOf(lease));
          },
          switchOver: async (mark, action) => {
            try {
              await handOver(
                instances,
                project,
                (lease) => action(openOf(lease)),
                () => markFolder(disk, directory, mark),
              );
            } finally {
              // Whoever follows the project comes back, and is told where it is, or goes on.
              feed.end(project);
            }
            forget();
            keys.evict(project);
          },
        },
      },
      watch,
    );
    return { to: target.place, kept: basename(kept) };
  }
}

function openOf({ store, cipher, file }: InstanceLease): OpenFolder {
  return { store, cipher, file: formatProjectFile(file).toString() };
}

function stopping(): AppError {
  return new AppError('overloaded', { detail: 'the server is stopping' });
}

function refusalOf(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof MoveFailed || error instanceof SchemaMismatch)
    return new AppError('move_refused', { detail: error.message, cause: error });
  return new AppError('internal_error', { cause: error });
}
