import type { MovedProject, MoveProgress } from '@bundoc/client';
import type { Pool } from '@bundoc/shared/admission/pool';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import { shareIn } from '@bundoc/shared/shares/share-key';
import type { KeyCache } from '../crypto/key-cache.ts';
import { type StartedStorage, startStorage } from '../engine/identity/started-storage.ts';
import type { OnSetAside } from '../engine/moves/set-aside.ts';
import type { OpenMoveTarget } from '../engine/moves/transfer-port.ts';
import { MoveFailed, OutcomeUnknown } from '../engine/port/errors.ts';
import type { StorageEngine } from '../engine/storage-engine.ts';
import { finishMove, type MoveLimits, type MoveWatch, moveProject } from '../operations/move-project.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import { createServiceShares } from '../work/service-shares.ts';
import type { ChangeFeed } from './change-feed.ts';

export interface MovesOptions {
  readonly instances: Pick<InstanceManager, 'acquire' | 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly feed: Pick<ChangeFeed, 'end'>;
  readonly logger: Logger;
  readonly onSetAside: OnSetAside;
  /** This storage. */
  readonly from: StartedStorage;
  /** Source and target of moves; undefined for a service without moves. */
  readonly ends:
    | { readonly source: NonNullable<StorageEngine['moveSource']>; readonly target: MoveDestination }
    | undefined;
  readonly limits?: MoveLimits;
  /** The places of running moves. */
  readonly share?: Pool;
}

/** A storage that projects move to. */
interface MoveDestination {
  /** Its host, port and database, for messages. */
  readonly place: string;
  /** Connects for one move. @throws MoveFailed; AppError `storage_unavailable`. */
  open(): Promise<OpenMoveTarget>;
}

/** The target of a project, and the folder below `moved` that keeps its old content. */
export type Moved = Omit<MovedProject, 'moved'>;

/** A running move. */
export interface RunningMove {
  readonly progress: MoveProgress;
  /** Rejects with an AppError. Until it settles, no other move of the project can start. */
  readonly outcome: Promise<Moved>;
  /** Ends it at its next step, unless the cut-over is near. */
  stop(reason: AppError): void;
}

/** Moves projects in use from files into PostgreSQL. */
export class Moves {
  readonly #options: MovesOptions;
  readonly #share: Pool;
  /** By project; undefined while a move is starting. */
  readonly #running = new Map<string, RunningMove | undefined>();
  #isClosed = false;

  constructor(options: MovesOptions) {
    this.#options = options;
    this.#share = options.share ?? createServiceShares().moves;
  }

  /**
   * Starts a move. A move after its cut-over is finished, and returns its result.
   *
   * @throws AppError `move_refused` for a service without moves, `project_not_found`; `rate_limited`,
   *   `overloaded` while too many are running; those of the project.
   */
  async begin(project: string): Promise<RunningMove> {
    const { ends, instances } = this.#options;
    if (ends === undefined)
      throw new AppError('move_refused', {
        detail: 'this service moves no projects: BUNDOC_MOVE_TO is not set',
      });
    if (this.#running.has(project))
      throw new AppError('rate_limited', { retryAfterS: 10, detail: 'another move is in progress' });
    const key = shareIn(project);
    const hold = this.#share.tryTake(key, 1);
    if (hold === undefined) throw this.#share.refusal(key, 1);
    this.#running.set(project, undefined);
    let move: RunningMove | undefined;
    try {
      const holder = await findHolder(instances, project);
      if (this.#isClosed) throw new AppError('overloaded', { detail: 'the server is stopping' });
      move = this.#run(project, hold, (watch) => this.#move(project, ends, watch, holder));
      return move;
    } finally {
      if (move !== undefined) this.#running.set(project, move);
      else {
        this.#running.delete(project);
        hold[Symbol.dispose]();
      }
    }
  }

  /** Ends all moves at their next step, and starts no others. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const running = [...this.#running.values()].filter((move) => move !== undefined);
    for (const move of running) move.stop(new AppError('overloaded', { detail: 'the server is stopping' }));
    await Promise.allSettled(running.map(({ outcome }) => outcome));
  }

  #run(project: string, hold: Disposable, move: (watch: MoveWatch) => Promise<Moved>): RunningMove {
    const { logger } = this.#options;
    const stop = new AbortController();
    let progress: MoveProgress = { step: 'copying', documents: 0, of: 0 };
    const show = (step: MoveProgress['step']) => (documents: number, of: number) => {
      stop.signal.throwIfAborted();
      progress = { step, documents, of };
    };
    const watch: MoveWatch = {
      onCopied: show('copying'),
      onVerified: show('verifying'),
      onSwitch: () => show('switching')(progress.documents, progress.of),
    };
    const outcome = move(watch)
      .then(
        (moved) => {
          logger.info({ project, ...moved }, 'a project was moved');
          return moved;
        },
        (error: unknown) => {
          logger.warn({ err: error, project }, 'a project could not be moved');
          throw refusalOf(error);
        },
      )
      .finally(() => {
        this.#running.delete(project);
        hold[Symbol.dispose]();
      });
    outcome.catch(() => undefined);
    return {
      get progress() {
        return progress;
      },
      outcome,
      stop: (reason) => stop.abort(reason),
    };
  }

  /** @param holder the storage that now has the project, if it is another one. */
  async #move(
    project: string,
    ends: NonNullable<MovesOptions['ends']>,
    watch: MoveWatch,
    holder: string | undefined,
  ): Promise<Moved> {
    const { instances, keys, feed, from, onSetAside, limits } = this.#options;
    await using there = await ends.target.open();
    const to = await startStorage(there.identity, from.calls);
    if (holder !== undefined && holder !== to.id)
      throw new AppError('project_elsewhere', { storage: holder });
    const source = ends.source(project, instances);
    const target = there.project(project, () => source.cipher, onSetAside);
    try {
      const move =
        holder === undefined
          ? await moveProject({ project, source, target, from, to }, watch, limits)
          : await finishMove({ project, source, target, to });
      return { to: ends.target.place, kept: `${project}-${move}` };
    } finally {
      if ((await source.mark()) !== undefined) {
        // Readers of changes reconnect. They learn where the project is, or continue.
        feed.end(project);
        keys.evict(project);
      }
    }
  }
}

/**
 * @returns the storage that has the project, if it is another one. @throws AppError `project_not_found` and
 *   those of the project.
 */
async function findHolder(
  instances: MovesOptions['instances'],
  project: string,
): Promise<string | undefined> {
  try {
    using lease = await instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return undefined;
  } catch (error) {
    if (hasCode(error, 'project_elsewhere')) return error.storage;
    throw error;
  }
}

function refusalOf(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof OutcomeUnknown)
    return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  if (error instanceof MoveFailed)
    return new AppError('move_refused', { detail: error.message, cause: error });
  return new AppError('internal_error', { cause: error });
}
