import type { Clock } from '@bundoc/shared/runtime/clock';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import { inSteps } from '../../work/in-steps.ts';
import type { CarriedFiles } from './carried-files.ts';
import type { Disk } from './disk/disk.ts';
import type { Log } from './log/log.ts';
import type { LogMark } from './log/log-api.ts';
import { type CheckpointDeps, type CheckpointSource, checkpointStores } from './store/checkpoint.ts';
import type { FileStore } from './store/file-store.ts';
import { LoadedStore, type LogOfProjects, replayParts } from './store/project-loader.ts';

/** Maximum number of open projects whose checkpoints share their syncs. */
const CHECKPOINTS_TOGETHER = 512;
/** Snapshots up to this length are written together, up to this total. */
const SMALL_SNAPSHOT_BYTES = 262_144;
const SNAPSHOTS_TOGETHER_BYTES = 16_777_216;

export interface CheckpointTurnsOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly log: Log;
  readonly logOfProjects: LogOfProjects;
  readonly carried: CarriedFiles;
  /** Open stores by their handles. */
  readonly stores: ReadonlyMap<string, FileStore>;
}

/** Checkpoints of open projects: one at a time for each project, and small ones of many projects together. */
export class CheckpointTurns {
  readonly #options: CheckpointTurnsOptions;
  readonly #turns = new KeyedMutex();
  /** Checkpoints that have not started. */
  readonly #waiting = new Map<FileStore, Promise<void>>();

  constructor(options: CheckpointTurnsOptions) {
    this.#options = options;
  }

  /** Resolves once the current checkpoints of a handle are done; undefined when it has none. */
  settled(handle: string): Promise<void> | undefined {
    return this.#turns.settled(handle);
  }

  /** Resolves once all current checkpoints are done. */
  drained(): Promise<void> {
    return this.#turns.drained();
  }

  /**
   * Requests a checkpoint of a store. All callers share one that has not started; a running one would lack
   * the latest commits.
   */
  of(store: FileStore): Promise<void> {
    let waiting = this.#waiting.get(store);
    if (waiting === undefined) {
      waiting = this.together([store], false).then(([failure]) => {
        if (failure !== undefined) throw failure;
      });
      this.#waiting.set(store, waiting);
      waiting.catch(() => undefined);
    }
    return waiting;
  }

  /**
   * Waits for each store's running checkpoint, then takes the checkpoints together. @returns for each store
   * undefined or the failure.
   */
  async together(stores: readonly FileStore[], force: boolean): Promise<readonly unknown[]> {
    const outcomes = Promise.withResolvers<readonly unknown[]>();
    const turns = stores.map((store) => {
      const turn = Promise.withResolvers<void>();
      void this.#turns.run(store.handle, () => {
        turn.resolve();
        return outcomes.promise.then(() => undefined);
      });
      return turn.promise;
    });
    await Promise.all(turns);
    for (const store of stores) this.#waiting.delete(store);
    try {
      outcomes.resolve(await checkpointStores(stores, this.#ports, force));
    } catch (error) {
      outcomes.resolve(stores.map(() => error));
    }
    return outcomes.promise;
  }

  get #ports(): CheckpointDeps {
    const { clock, disk, tmp } = this.#options;
    return {
      clock,
      disk,
      tmp,
      writeAgain: (source) => this.#writeAgain(source),
      done: (source, mark) => this.#markCovered(source, mark),
    };
  }

  async #markCovered(source: CheckpointSource, mark: LogMark | undefined): Promise<void> {
    const { carried, log } = this.#options;
    const { handle, directory } = source;
    if (mark === undefined) return;
    log.cover(handle, mark);
    await carried.removeUpTo(handle, directory, mark.place);
  }

  /**
   * Rewrites every document file that the log still has, because a failed sync leaves their content unknown.
   */
  async #writeAgain(source: CheckpointSource): Promise<void> {
    const { disk, logOfProjects } = this.#options;
    const { project, directory, cipher, handle, covered, files, catalog, ownWork } = source;
    const loaded = new LoadedStore();
    await using reader = logOfProjects.reader();
    using work = ownWork('snapshot');
    await replayParts(
      { project, directory, disk, cipher, log: logOfProjects },
      { reader, handle, covered, mayHaveCarried: true },
      (part) => inSteps(loaded.replay(part.plaintext), work),
    );
    for (const state of loaded.catalog.states()) {
      const fileName = state.fileName.toString('hex');
      const live = catalog.get(state);
      const isLatest = live?.seq === state.seq && live.keyVersion === state.keyVersion;
      // A later state has been written, or a write is pending.
      if (!isLatest || files.pendingWrites.has(fileName)) continue;
      const sealed = loaded.sealedByFile.get(fileName);
      if (state.deletedMs !== 0) files.remove(fileName);
      else if (sealed !== undefined) files.put(fileName, Buffer.from(sealed));
    }
  }

  /** Checkpoints open projects. Small ones share their syncs and do not wait for large ones. */
  async ofOpen(handles: readonly string[]): Promise<void> {
    const { carried, stores: open } = this.#options;
    let together: FileStore[] = [];
    let bytes = 0;
    const end = async () => {
      const stores = together;
      [together, bytes] = [[], 0];
      if (stores.length > 0) await this.together(stores, false);
    };
    for (const handle of handles) {
      const store = open.get(handle);
      if (store === undefined || store.failed) continue;
      // It runs alone, and the others do not wait for it.
      if (store.snapshotBytes > SMALL_SNAPSHOT_BYTES || this.settled(handle) !== undefined) {
        if (store.isWorthCheckpoint || carried.areMany(handle)) await this.of(store).catch(() => undefined);
        continue;
      }
      together.push(store);
      bytes += store.snapshotBytes;
      if (together.length === CHECKPOINTS_TOGETHER || bytes > SNAPSHOTS_TOGETHER_BYTES) await end();
    }
    await end();
  }
}
