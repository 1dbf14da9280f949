import { basename } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { OpenFolder } from '../move/folder-source.ts';
import { abandonRows } from '../move/incoming-rows.ts';
import { MoveFailed, type MoveWatch } from '../move/move-project.ts';
import { abandonToDatabase, finishToDatabase, moveToDatabase } from '../move/to-database.ts';
import { handOver } from '../project/hand-over.ts';
import type { InstanceLease, InstanceManager } from '../project/instance-manager.ts';
import type { KeyCache } from '../project/key-cache.ts';
import { projectElsewhere } from '../project/move-mark.ts';
import { isHalfMoved, markMoved, readMoveMark } from '../project/moved-folder.ts';
import { formatProjectFile } from '../project/project-file.ts';
import { UnfinishedWork } from '../project/unfinished-work.ts';
import { type Connections, OutcomeUnknown } from '../storage/postgres/database.ts';
import { SchemaMismatch } from '../storage/postgres/migrate.ts';
import type { MovableFolders, ProjectPlaceInFiles } from '../storage-parts.ts';
import type { ChangeFeed } from './change-feed.ts';

/** Moves that go on at a time. Each reads the whole of a project, and holds connections. */
const MOVES_MAX = 2;

export interface MovesOptions {
  readonly instances: Pick<InstanceManager, 'acquire' | 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly feed: Pick<ChangeFeed, 'end'>;
  readonly logger: Logger;
  /** Undefined where the storage is none in files. */
  readonly folders: MovableFolders | undefined;
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

/**
 * Moves projects out of files into PostgreSQL while they are used. Of a project there is one thing at a time: it is moved, its move is given up, or the last
 * steps of it are made.
 */
export class Moves {
  readonly #options: MovesOptions;
  /** What is done, by project; a move once it has begun. */
  readonly #running = new Map<string, RunningMove | undefined>();
  /** What is no move of it. */
  readonly #others = new Set<Promise<void>>();
  readonly #unfinished: UnfinishedWork;
  #isClosed = false;

  constructor(options: MovesOptions) {
    this.#options = options;
    this.#unfinished = new UnfinishedWork({
      work: 'move',
      find: () => this.#findHalfMoved(),
      finish: (project) => this.#finish(project),
      logger: options.logger,
    });
  }

  /**
   * Begins a move, or goes on with one that was cut short; one that is over is answered as it was.
   *
   * @throws AppError `move_refused` where the service moves none, `project_not_found`, `project_moving` for one that is being brought in, `rate_limited`
   * while enough are moved; those of the project.
   */
  async begin(project: string): Promise<RunningMove> {
    const { folders, target } = this.#requireEnds();
    this.#requireRoom();
    this.#take(project);
    try {
      const place = folders.placeOf(project);
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

  /**
   * Gives a move up that has not changed hands, also one that is under way: once resolved, the project is here alone, and nothing of it where it was to go.
   * Where none was begun, nothing is done. One of a project that was deleted can be given up as well.
   *
   * @throws AppError `move_refused` where the service moves none, and once the project has changed hands; `project_not_found`, `project_moving` for one that
   * is being brought in; `rate_limited` while enough is under way; `storage_unavailable` of the database.
   */
  async abandon(project: string): Promise<void> {
    const { folders, target } = this.#requireEnds();
    const running = this.#running.get(project);
    running?.stop(new AppError('move_refused', { detail: 'the move was given up' }));
    await running?.outcome.catch(() => undefined);
    this.#requireRoom();
    await this.#alone(project, () => this.#abandon(project, folders.placeOf(project), target)).catch(
      (error: unknown) => {
        throw refusalOf(error);
      },
    );
  }

  /** Makes the last steps of moves that were cut short once the project had changed hands. Never rejects; to be called every few seconds. */
  resume(): Promise<void> {
    return this.#unfinished.resume();
  }

  /** Ends all moves at their next step, waits for what else is done, and begins nothing any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const running = [...this.#running.values()].filter((move) => move !== undefined);
    for (const move of running) move.stop(stopping());
    await Promise.allSettled([...running.map(({ outcome }) => outcome), ...this.#others]);
  }

  /** @throws AppError `move_refused`, `overloaded`. */
  #requireEnds(): { readonly folders: MovableFolders; readonly target: MoveDestination } {
    const { folders, target } = this.#options;
    if (folders === undefined || target === undefined)
      throw new AppError('move_refused', {
        detail: 'this service moves no projects: BUNDOC_MOVE_TO is not set',
      });
    if (this.#isClosed) throw stopping();
    return { folders, target };
  }

  /** @throws AppError `rate_limited`. */
  #take(project: string): void {
    if (this.#running.has(project)) throw another();
    this.#running.set(project, undefined);
  }

  /** @throws AppError `rate_limited`. */
  #requireRoom(): void {
    if (this.#running.size >= MOVES_MAX) throw another();
  }

  /** Does something else than moving a project while nothing else is done with it. @throws AppError `rate_limited`. */
  async #alone(project: string, action: () => Promise<void>): Promise<void> {
    this.#take(project);
    const ended = action().finally(() => {
      this.#running.delete(project);
      this.#others.delete(ended);
    });
    this.#others.add(ended);
    await ended;
  }

  async #findHalfMoved(): Promise<readonly string[]> {
    const { folders, target, logger } = this.#options;
    const projects = (await folders?.halfMoved()) ?? [];
    if (target !== undefined || projects.length === 0) return projects;
    logger.error(
      { projects },
      'moves of projects are not finished: BUNDOC_MOVE_TO is to name where they went',
    );
    return [];
  }

  /** The same steps as a move that is begun again would make: the project has changed hands, so nothing else is left. */
  async #finish(project: string): Promise<void> {
    const { logger } = this.#options;
    const { folders, target } = this.#requireEnds();
    const { directory, keptIn, disk } = folders.placeOf(project);
    try {
      await this.#alone(project, async () => {
        const mark = await readMoveMark(disk, project, directory);
        if (mark === undefined || !(await isHalfMoved(disk, project, directory))) return;
        await using database = await target.open();
        const kept = await finishToDatabase({ project, directory, keptIn, disk, database }, mark);
        const moved: Moved = { to: target.place, kept: basename(kept) };
        logger.info({ project, ...moved }, 'the move of a project was finished');
      });
    } catch (error) {
      // It would be the same every time.
      if (!(error instanceof MoveFailed || error instanceof SchemaMismatch)) throw error;
      logger.error({ err: error, project, to: target.place }, 'the move of a project cannot be finished');
    }
  }

  async #abandon(
    project: string,
    { disk, directory }: ProjectPlaceInFiles,
    target: MoveDestination,
  ): Promise<void> {
    await using database = await target.open();
    await abandonToDatabase({ project, directory, disk, database });
    this.#options.logger.info({ project, to: target.place }, 'the move of a project was given up');
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
        async (error: unknown) => {
          logger.warn({ err: error, project, to: target.place }, 'a project could not be moved');
          const { disk, directory } = place;
          if (await isHalfMoved(disk, project, directory).catch(() => true)) this.#unfinished.begun(project);
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
    const moving = moveToDatabase(
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
                () => markMoved(disk, directory, mark),
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
    const kept = await moving.catch(async (error: unknown) => {
      // It was deleted meanwhile: what was copied of it goes, too.
      if (hasCode(error, 'project_destroyed')) await abandonRows(database, project);
      throw error;
    });
    return { to: target.place, kept: basename(kept) };
  }
}

function openOf({ store, cipher, file }: InstanceLease): OpenFolder {
  return { store, cipher, file: formatProjectFile(file).toString() };
}

function another(): AppError {
  return new AppError('rate_limited', { retryAfterS: 10, detail: 'another move is under way' });
}

function stopping(): AppError {
  return new AppError('overloaded', { detail: 'the server is stopping' });
}

function refusalOf(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof OutcomeUnknown)
    return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  if (error instanceof MoveFailed || error instanceof SchemaMismatch)
    return new AppError('move_refused', { detail: error.message, cause: error });
  return new AppError('internal_error', { cause: error });
}
