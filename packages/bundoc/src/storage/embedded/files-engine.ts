import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type Clock, systemClock } from '@bundoc/shared/clock';
import {
  CATALOG_FILE,
  CATALOG_START_BYTES,
  type CatalogStart,
  parseCatalogStart,
} from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { DELETION_FILE, MOVE_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { isCarriedUpTo } from '../../engine/files/log/carried-file.ts';
import {
  comparePlaces,
  type FramePlace,
  HANDLE_BYTES,
  isSamePlace,
  type Place,
} from '../../engine/files/log/layout.ts';
import { Log } from '../../engine/files/log/log.ts';
import type {
  AttachedHandle,
  CarriedContent,
  LogLimits,
  LogMark,
  LogStats,
  PartSource,
  TakenPart,
} from '../../engine/files/log/log-api.ts';
import type { FoundBirth } from '../../engine/files/log/log-content.ts';
import type { PartKeys } from '../../engine/files/log/part-seal.ts';
import type { PartReader } from '../../engine/files/log/parts.ts';
import type { LogDisk, LogObserver } from '../../engine/files/log/ports.ts';
import { KeyedMutex } from '../../keyed-mutex.ts';
import type { Backlog } from './backlog.ts';
import { type CheckpointPorts, type CheckpointSource, checkpointStores } from './checkpoint.ts';
import {
  type Disk,
  makeDirectoryDurably,
  removeLeftovers,
  replaceFile,
  SMALL_FILE_BYTES_MAX,
} from './disk.ts';
import { DocumentWriter } from './document-writer.ts';
import type { CheckpointBytes, EmbeddedStore, EnginePort } from './embedded-store.ts';
import { openStore, type StoreOptions } from './open-store.ts';
import {
  CARRIED_BYTES_MAX,
  CARRIED_FOLDER,
  handleIn,
  type LoadedProject,
  LoadedStore,
  type LogOfProjects,
  newborn,
  readCarried,
  replayParts,
} from './project-loader.ts';

export interface FilesEngineOptions {
  readonly disk: Disk;
  readonly logDisk: LogDisk;
  /** The data folder; exists. */
  readonly dataDir: string;
  /** Where the folders of projects lie; exists. */
  readonly projectsDir: string;
  /** 16 bytes. */
  readonly storageId: Buffer;
  /** Whether the storage had a log before: then a missing log was lost. */
  readonly mustExist: boolean;
  readonly logLimits: LogLimits;
  /**
   * Uncovered bytes in the log after which an open project gets a checkpoint; fewer where the log is small.
   */
  readonly checkpointBytes: number;
  readonly backlog: Backlog;
  readonly clock?: Clock;
  readonly observer?: LogObserver;
  /** Rejects once another process holds the data folder. Nothing is written then. */
  readonly beforeSegment?: () => Promise<void>;
  /** Called with the handles of projects whose folders failed while the log was freed. */
  readonly onStuck?: (handles: readonly string[]) => void;
  /** Called when the log could not be freed. */
  readonly onFreeingFailed?: (error: unknown) => void;
}

export const LOG_FOLDER = 'log';
export const TMP_FOLDER = 'tmp';
/** Open projects whose checkpoints share their syncs, at most. */
const CHECKPOINTS_TOGETHER = 512;
/** Heads of catalogs that are read at the same time. */
const READS_AT_ONCE = 16;
const FREE_AGAIN_MS = 1_000;
/** Snapshots up to this length are written together, up to so many bytes of them. */
const SMALL_SNAPSHOT_BYTES = 262_144;
const SNAPSHOTS_TOGETHER_BYTES = 16_777_216;
/** Carried files from which on an open project gets a checkpoint, so that its next opening need not read them. */
const CARRIED_FILES_MAX = 2;
/** Births whose folders are looked at side by side. */
const BIRTHS_AT_ONCE = 32;

/** A project that has no catalog yet. The log has its birth. */
interface Born {
  readonly handle: string;
  /** The bytes of its `project.json`, until they are written. */
  unwritten: Buffer | undefined;
  /** Its birth in the log, until it is opened for the first time. */
  unopened: { readonly place: Place; readonly keyVersion: number } | undefined;
  /** Whether folder and `project.json` are synced. Until then only the log is durable. */
  isDurable: boolean;
  /** Whether the folder could not be read when the service started, so what it has is unknown. */
  isUnseen: boolean;
  /** Whether a sync of `project.json` has failed: no later sync makes durable what was written before. */
  mustReplace: boolean;
}

/**
 * The projects of a data folder: one log, one writer of document files, and the checkpoints that free
 * segments of the log.
 *
 * A project costs a folder, `project.json`, a catalog, and its document files. For a closed project, the log
 * and the engine together keep about 200 bytes in memory.
 */
export class FilesEngine implements EnginePort, LogOfProjects, AsyncDisposable {
  readonly checkpointBytes: CheckpointBytes;
  readonly storageId: Buffer;
  readonly #options: FilesEngineOptions;
  readonly #log: Log;
  readonly #writer: DocumentWriter;
  readonly #tmp: string;
  readonly #clock: Clock;
  readonly #stores = new Map<string, EmbeddedStore>();
  readonly #born = new Map<string, Born>();
  /** The project of each handle. */
  readonly #projectOf = new Map<string, string>();
  /** Handles whose parts were carried out of the log, into files. */
  readonly #carried = new Map<string, number>();
  readonly #checkpointing = new KeyedMutex();
  /** Checkpoints that have not begun. */
  readonly #checkpointsWaiting = new Map<EmbeddedStore, Promise<void>>();
  /** Handles of projects whose next commits wait for their checkpoint. */
  readonly #checkpointsWanted = new Set<string>();
  #freeing: Promise<void> | undefined;
  /** Keeps a folder of carried files from being removed while another file is put into it. */
  readonly #carriedFolders = new KeyedMutex();
  /** Files of carried parts that are being put into folders. */
  #placing: Promise<unknown> | undefined;
  #isFreeingWanted = false;
  #isClosed = false;
  /** Resolves once the log knows what every catalog covers. Never rejects. */
  readonly scanned: Promise<void>;

  private constructor(options: FilesEngineOptions, log: Log) {
    const { dataDir, disk, backlog, clock = systemClock } = options;
    this.#options = options;
    this.#log = log;
    this.#clock = clock;
    this.#tmp = join(dataDir, TMP_FOLDER);
    this.#writer = new DocumentWriter({ disk, backlog });
    const { segmentBytes, segmentsMax } = options.logLimits;
    const most = (segmentBytes * segmentsMax) / 4;
    this.checkpointBytes = { least: Math.min(options.checkpointBytes, most), most };
    this.storageId = options.storageId;
    const scan = Promise.withResolvers<void>();
    this.scanned = scan.promise;
    this.#startScan = () => void this.#readCatalogs().then(scan.resolve, scan.resolve);
  }

  readonly #startScan: () => void;

  /**
   * Opens the log, without any key, and writes the folders of new projects that a crash left unwritten.
   *
   * @throws LogDamaged; AppError of the disk.
   */
  static async open(options: FilesEngineOptions): Promise<FilesEngine> {
    const { disk, logDisk, dataDir, storageId, logLimits, mustExist, observer } = options;
    const tmp = join(dataDir, TMP_FOLDER);
    await makeDirectoryDurably(disk, tmp);
    await removeLeftovers(disk, tmp);
    let engine: FilesEngine | undefined;
    const log = await Log.open({
      disk: logDisk,
      directory: join(dataDir, LOG_FOLDER),
      ...{ storageId, mustExist, limits: logLimits },
      ...(options.clock === undefined ? {} : { clock: options.clock }),
      ...(options.beforeSegment === undefined ? {} : { beforeSegment: options.beforeSegment }),
      observer: { ...observer, onPressure: (handle) => engine?.freeSegments(handle) },
    });
    engine = new FilesEngine(options, log);
    try {
      await engine.#restoreBirths();
    } catch (error) {
      await log[Symbol.asyncDispose]();
      throw error;
    }
    engine.#startScan();
    // Before anything is written: what is freed is free with the next segment.
    if (log.shouldFree) engine.freeSegments(undefined);
    return engine;
  }

  get stats(): LogStats {
    return this.#log.stats;
  }

  // Reading the log.

  handleOf(project: string): string | undefined {
    return this.#born.get(project)?.handle;
  }

  newest(handle: string): Place | undefined {
    return this.#log.newest(handle);
  }

  isDoubtful(handle: string, covered: Place | undefined): boolean {
    return this.#log.isDoubtful(handle, covered);
  }

  get firstLive(): number {
    return this.#log.firstLive;
  }

  reader(): PartReader {
    return this.#log.reader();
  }

  hasCarried(handle: string): boolean {
    return this.#carried.has(handle);
  }

  stuckOf(handle: string): Promise<readonly Buffer[]> {
    return this.#log.stuck.handles.has(handle) ? this.#log.stuck.read(handle) : Promise.resolve([]);
  }

  // Projects.

  /**
   * Makes a project that does not exist. Its birth goes into the log first, as a part of its own. Its folder
   * and `project.json` are written and not synced, since a start writes them again from the log. The caller
   * keeps others from making or opening the project meanwhile.
   */
  async create(project: string, directory: string, keys: BirthKeys, projectFile: Buffer): Promise<void> {
    const handle = randomBytes(HANDLE_BYTES).toString('hex');
    const birth = { project, projectFile };
    const place = await this.#write(
      { handle, project, keys },
      { kind: 'birth', keyVersion: keys.version, birth },
    );
    const unopened = { place, keyVersion: keys.version };
    const born: Born = newBorn(handle, { unwritten: projectFile, unopened });
    this.#born.set(project, born);
    this.#projectOf.set(handle, project);
    await this.writeBirth(project, directory);
  }

  /** Writes the `project.json` of a new project, if that has failed so far. */
  async writeBirth(project: string, directory: string): Promise<void> {
    const born = this.#born.get(project);
    if (born?.unwritten === undefined) return;
    if (born.isUnseen) await this.#writeIfMissing(directory, born.unwritten);
    else await this.#writeProjectFile(directory, born.unwritten);
    born.unwritten = undefined;
    born.isUnseen = false;
  }

  /** Syncs the folder of a new project. Needed before a file in it is replaced. */
  async syncBirth(project: string): Promise<void> {
    const born = this.#born.get(project);
    if (born === undefined || born.isDurable) return;
    const { disk, projectsDir } = this.#options;
    await this.#replaceIfFailed(project, born);
    try {
      await disk.syncFiles([join(projectsDir, project, PROJECT_FILE)]);
    } catch (error) {
      born.mustReplace = true;
      throw error;
    }
    await disk.syncDirectory(projectsDir);
    born.isDurable = true;
  }

  /**
   * Syncs the folders of those projects that are new, with two syncs for all: the log, whose segment is to be freed, is the only other place that
   * has their `project.json`.
   *
   * @returns those that could not be, with the error. @throws AppError `disk_full`
   */
  async #syncBirthsOf(projects: readonly (string | undefined)[]): Promise<Map<string, AppError>> {
    const { disk, projectsDir } = this.#options;
    const unsafe = new Map<string, AppError>();
    const fails = (project: string, error: unknown) => {
      if (!(error instanceof AppError) || error.code === 'disk_full') throw error;
      unsafe.set(project, error);
    };
    const written: [string, Born][] = [];
    for (const project of new Set(projects)) {
      const born = project === undefined ? undefined : this.#born.get(project);
      if (project === undefined || born === undefined || born.isDurable) continue;
      try {
        await this.writeBirth(project, join(projectsDir, project));
        await this.#replaceIfFailed(project, born);
        written.push([project, born]);
      } catch (error) {
        fails(project, error);
      }
    }
    if (written.length === 0) return unsafe;
    try {
      await disk.syncFiles(written.map(([project]) => join(projectsDir, project, PROJECT_FILE)));
      await disk.syncDirectory(projectsDir);
      for (const [, born] of written) born.isDurable = true;
    } catch {
      for (const [project, born] of written) {
        born.mustReplace = true;
        await this.syncBirth(project).catch((error: unknown) => fails(project, error));
      }
    }
    return unsafe;
  }

  /** Writes `project.json` into a new file, if a sync of the present one has failed. */
  async #replaceIfFailed(project: string, born: Born): Promise<void> {
    if (!born.mustReplace) return;
    const { disk, projectsDir } = this.#options;
    const path = join(projectsDir, project, PROJECT_FILE);
    const content = await disk.read(path, SMALL_FILE_BYTES_MAX);
    if (content === undefined) throw new AppError('project_damaged');
    await replaceFile(disk, this.#tmp, path, content);
    born.mustReplace = false;
  }

  /** Without a sync. */
  async #writeProjectFile(directory: string, content: Buffer): Promise<void> {
    const path = join(directory, PROJECT_FILE);
    const [failure] = await this.#options.disk.writeFiles([{ path, content }]);
    if (failure !== undefined) throw failure;
  }

  /**
   * Writes the `project.json` of a birth unless one is there that can be parsed. A deleted or moved project
   * is not made again: opening it checks whether the mark is genuine.
   *
   * @returns names in the folder before.
   */
  async #writeIfMissing(directory: string, projectFile: Buffer): Promise<readonly string[] | undefined> {
    const names = await this.#options.disk.list(directory).catch((error: unknown) => {
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    });
    const isMarked = names?.some((name) => name === DELETION_FILE || name === MOVE_FILE) === true;
    if (!isMarked && !(await this.#isProjectFile(join(directory, PROJECT_FILE))))
      await this.#writeProjectFile(directory, projectFile);
    return names;
  }

  /** @throws AppError `project_damaged`, and those of the disk. */
  async openStore(options: StoreOptions): Promise<EmbeddedStore> {
    const known = this.#takeUnopened(options.project);
    const on = { log: this, writer: this.#writer, engine: this, known };
    const { store, loaded } = await openStore(options, on);
    const { handle, projectFile } = loaded;
    this.#stores.set(handle, store);
    this.#projectOf.set(handle, options.project);
    if (loaded.carriedFiles > 0) this.#carried.set(handle, loaded.carriedFiles);
    if (loaded.carriedFiles > CARRIED_FILES_MAX) void this.checkpoint(store).catch(() => undefined);
    const isCopied =
      projectFile?.equals(options.projectFile) ??
      loaded.versions.values().every((version) => version === options.cipher.version);
    if (isCopied) return store;
    // The copy of `project.json` in the catalog is never older than a key version that something is sealed
    // under.
    const [failure] = await this.#checkpointAll([store], true);
    if (failure === undefined) return store;
    await store[Symbol.asyncDispose]();
    throw failure;
  }

  /**
   * What a project has that was made and never opened. The caller keeps others from opening it meanwhile, so
   * only its birth can be in the log; should there be another part all the same, the log is read.
   */
  #takeUnopened(project: string): LoadedProject | undefined {
    const born = this.#born.get(project);
    if (born?.unopened === undefined) return undefined;
    const { handle, unopened } = born;
    born.unopened = undefined;
    const newest = this.#log.newest(handle);
    if (newest === undefined || !isSamePlace(newest, unopened.place)) return undefined;
    return newborn(handle, unopened.place, unopened.keyVersion);
  }

  /** Ends a project in the log, which is to be removed or was moved away. It is not open. */
  async forget(project: string): Promise<void> {
    await this.#writer.drop(project);
    for (const handle of await this.#handlesOf(project)) await this.drop(project, handle);
    // Not before: a caller that tries again after a failure must find the handle.
    this.#born.delete(project);
  }

  /** Every handle under which the log, or a carried file, may have parts of a project. */
  async #handlesOf(project: string): Promise<Set<string>> {
    const { disk, projectsDir } = this.#options;
    const handles = new Set<string>();
    for (const [handle, of] of this.#projectOf) if (of === project) handles.add(handle);
    const born = this.#born.get(project)?.handle;
    const start = (await this.#startOf(project))?.handle;
    for (const handle of [born, start]) if (handle !== undefined) handles.add(handle);
    if (handles.size > 0) return handles;
    // Of before the start, and carried before there was a catalog.
    const carried = await readCarried(disk, join(projectsDir, project)).catch(() => []);
    for (const file of carried) {
      const handle = handleIn(file);
      if (handle !== undefined) handles.add(handle);
    }
    return handles;
  }

  /** Ends a handle in the log: the project is gone, or has another handle. */
  async drop(project: string, handle: string): Promise<void> {
    // Also when nothing is left of it: a segment that was freed is found again by a start before the next one has begun.
    await this.#write({ handle, project, keys: NO_KEYS }, { kind: 'gone', keyVersion: 0 });
    this.#projectOf.delete(handle);
    this.#carried.delete(handle);
    // What was read of it before its end may be on its way into its folder, which is to be removed.
    await this.#placing;
    await this.#log.stuck.remove(handle);
  }

  /**
   * Takes in a project that came with a new handle. If the log has lost frames of unknown projects, an empty
   * part behind them shows that they held nothing of this one.
   */
  async arrived(project: string, handle: string, keys: BirthKeys): Promise<void> {
    if (this.#log.stats.holes === 0) return;
    this.#projectOf.set(handle, project);
    await this.#write({ handle, project, keys }, { kind: 'data', keyVersion: keys.version });
  }

  /**
   * Marks the data folder as settled, durably: the start has synced the folder of every project. Nobody
   * writes.
   */
  markSettled(): Promise<void> {
    return this.#log.markSettled();
  }

  /**
   * Copies everything that only the log has into the folders of the projects, without any key. Afterwards
   * each folder has all of its project. Nobody writes.
   *
   * @returns projects whose folders failed, and handles without a project. Their parts stay in the folder of
   * the log.
   */
  async carryAll(): Promise<readonly string[]> {
    await this.scanned;
    const stuck = await this.#log.carryAll({ write: (files) => this.#carry(files) });
    await this.#log.markSettled();
    return stuck.map((handle) => this.#projectOf.get(handle) ?? handle);
  }

  /** Ends the doubt about lost frames of unknown projects: an administrator accepts the loss. */
  acceptLoss(): Promise<void> {
    return this.#log.acceptLoss();
  }

  /** The clear head of a project's catalog; undefined when it is missing or cannot be read. */
  async #startOf(project: string): Promise<CatalogStart | undefined> {
    const { disk, projectsDir } = this.#options;
    const path = join(projectsDir, project, CATALOG_FILE);
    const start = await disk.readStart(path, CATALOG_START_BYTES).catch((error: unknown) => {
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    });
    return start && parseCatalogStart(start);
  }

  /** Waits for what is under way, and closes the log. The caller has closed the stores. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.scanned;
    await this.#freeing;
    await this.#checkpointing.drained();
    await this.#writer.stop();
    // A failure costs nothing: the next start does it.
    await this.#syncBirths().catch(() => undefined);
    await this.#log[Symbol.asyncDispose]();
  }

  // For the stores.

  attach(source: PartSource, after: Place | undefined): AttachedHandle {
    return this.#log.attach(source, after);
  }

  /** A checkpoint that is under way lacks the latest commits. One that waits for its turn is shared by all who ask. */
  checkpoint(store: EmbeddedStore): Promise<void> {
    let waiting = this.#checkpointsWaiting.get(store);
    if (waiting === undefined) {
      waiting = this.#checkpointAll([store], false).then(([failure]) => {
        if (failure !== undefined) throw failure;
      });
      this.#checkpointsWaiting.set(store, waiting);
      waiting.catch(() => undefined);
    }
    return waiting;
  }

  async closed(store: EmbeddedStore): Promise<void> {
    while (this.#checkpointing.settled(store.handle) !== undefined)
      await this.#checkpointing.settled(store.handle);
    if (this.#stores.get(store.handle) === store) this.#stores.delete(store.handle);
    if (store.failed) await this.#writer.drop(store.project);
    else if (!this.#log.isUncovered(store.handle)) this.#writer.forget(store.project);
  }

  /** One checkpoint of a store at a time. @returns for each store undefined, or the failure. */
  async #checkpointAll(stores: readonly EmbeddedStore[], force: boolean): Promise<readonly unknown[]> {
    const outcomes = Promise.withResolvers<readonly unknown[]>();
    const turns = stores.map((store) => {
      const turn = Promise.withResolvers<void>();
      void this.#checkpointing.run(store.handle, () => {
        turn.resolve();
        return outcomes.promise.then(() => undefined);
      });
      return turn.promise;
    });
    await Promise.all(turns);
    for (const store of stores) this.#checkpointsWaiting.delete(store);
    try {
      outcomes.resolve(await checkpointStores(stores, this.#ports, force));
    } catch (error) {
      outcomes.resolve(stores.map(() => error));
    }
    return outcomes.promise;
  }

  get #ports(): CheckpointPorts {
    const { disk, projectsDir } = this.#options;
    return {
      disk,
      tmp: this.#tmp,
      clock: this.#clock,
      unsyncedBirth: async (project) => {
        const born = this.#born.get(project);
        if (born === undefined || born.isDurable) return { files: [], folders: [] };
        await this.#replaceIfFailed(project, born);
        return { files: [join(projectsDir, project, PROJECT_FILE)], folders: [projectsDir] };
      },
      writeAgain: (source) => this.#writeAgain(source),
      done: (source, mark) => this.#markCovered(source, mark),
    };
  }

  async #markCovered(source: CheckpointSource, mark: LogMark | undefined): Promise<void> {
    const { handle, project, directory } = source;
    this.#born.delete(project);
    if (mark === undefined) return;
    this.#log.cover(handle, mark);
    if (!this.#carried.has(handle)) return;
    await this.#carriedFolders.run(CARRIED_FOLDER, () => this.#removeCarried(handle, directory, mark.place));
  }

  /** Removes the carried files whose parts a durable snapshot covers. */
  async #removeCarried(handle: string, directory: string, covered: Place): Promise<void> {
    const { disk } = this.#options;
    const folder = join(directory, CARRIED_FOLDER);
    const names = (await disk.list(folder)) ?? [];
    let left = 0;
    for (const name of names) {
      const path = join(folder, name);
      const file = await disk.read(path, CARRIED_BYTES_MAX);
      if (file !== undefined && isCarriedUpTo(file, covered)) await disk.remove(path);
      else left++;
    }
    if (left === 0 && names.length > 0) await disk.removeTree(folder);
    await this.#log.stuck.removeUpTo(handle, covered);
    if (left === 0 && !this.#log.stuck.handles.has(handle)) this.#carried.delete(handle);
    else this.#carried.set(handle, left + 1);
  }

  async #writeAgain(source: CheckpointSource): Promise<void> {
    const { disk } = this.#options;
    const { project, directory, cipher, handle, covered, files, catalog } = source;
    const born = this.#born.get(project);
    if (born !== undefined && !born.isDurable) {
      born.mustReplace = true;
      await this.#replaceIfFailed(project, born);
    }
    const loaded = new LoadedStore();
    await using reader = this.reader();
    await replayParts(
      { project, directory, disk, cipher, log: this },
      { reader, handle, covered, mayHaveCarried: true },
      (part) => loaded.replay(part.plaintext),
    );
    for (const state of loaded.catalog.states()) {
      const fileName = state.fileName.toString('hex');
      const live = catalog.get(state);
      const isLatest = live?.seq === state.seq && live.keyVersion === state.keyVersion;
      // The file of a later state has been written, or a write is pending.
      if (!isLatest || files.pendingWrites.has(fileName)) continue;
      const sealed = loaded.sealedByFile.get(fileName);
      if (state.deletedMs !== 0) files.remove(fileName);
      else if (sealed !== undefined) files.put(fileName, Buffer.from(sealed));
    }
  }

  // The log as a whole.

  /** Writes a part of a project that is not open. @returns its place, once it is durable. */
  async #write(
    of: { readonly handle: string; readonly project: string; readonly keys: PartKeys },
    part: Pick<TakenPart, 'kind' | 'keyVersion' | 'birth'>,
  ): Promise<Place> {
    const done = Promise.withResolvers<Place>();
    let isTaken = false;
    const source: PartSource = {
      ...of,
      makesRoom: part.kind === 'gone',
      take: () => {
        if (isTaken) return undefined;
        isTaken = true;
        let at: Place;
        return {
          ...part,
          plaintext: [],
          commits: 0,
          durable: (place) => {
            at = place;
          },
          answer: () => done.resolve(at),
          refused: done.reject,
          unknown: done.reject,
        };
      },
      refuse: (error) => {
        if (part.kind !== 'gone' || error.code !== 'disk_full') done.reject(error);
      },
    };
    const attached = this.#log.attach(source, undefined);
    try {
      attached.ready();
      return await done.promise;
    } finally {
      attached.detach();
    }
  }

  /** Writes the folders of new projects that are missing or damaged, and syncs those of all. */
  async #restoreBirths(): Promise<void> {
    const { disk, projectsDir } = this.#options;
    const written: Born[] = [];
    const files: string[] = [];
    let areAllThere = true;
    const restore = async ({ handle, project, projectFile }: FoundBirth): Promise<void> => {
      if (projectIdSchema.safeParse(project).data !== project) return;
      const directory = join(projectsDir, project);
      // Somebody has removed the project, as is done before it is restored.
      if (this.#log.hadFolder(handle) && (await this.#isRemoved(directory))) return;
      const born = newBorn(handle, {});
      let names: readonly string[] | undefined;
      try {
        names = await this.#writeIfMissing(directory, projectFile);
        files.push(join(directory, PROJECT_FILE));
        written.push(born);
      } catch (error) {
        // Only this folder fails, and the other projects are served. Opening the project writes it.
        if (!(error instanceof AppError)) throw error;
        [born.unwritten, born.isUnseen, areAllThere] = [projectFile, true, false];
      }
      const isBorn =
        names?.includes(CATALOG_FILE) !== true && this.#isLater(handle, this.#born.get(project)?.handle);
      if (isBorn) this.#born.set(project, born);
      this.#projectOf.set(handle, project);
    };
    let some: FoundBirth[] = [];
    for await (const birth of this.#log.births()) {
      // Two births of one project, one after the other.
      if (some.length === BIRTHS_AT_ONCE || some.some(({ project }) => project === birth.project)) {
        await Promise.all(some.map(restore));
        some = [];
      }
      some.push(birth);
    }
    await Promise.all(some.map(restore));
    if (files.length > 0) {
      if (!(await this.#syncEach(files, written))) areAllThere = false;
      await disk.syncDirectory(projectsDir);
    }
    if (areAllThere) await this.#markSettled();
  }

  /**
   * Syncs the files of births together, or each by itself when that fails.
   *
   * @returns whether all are durable.
   */
  async #syncEach(files: readonly string[], births: readonly Born[]): Promise<boolean> {
    const { disk } = this.#options;
    try {
      await disk.syncFiles(files);
      for (const born of births) born.isDurable = true;
      return true;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
    }
    let areAllDurable = true;
    for (const [at, born] of births.entries())
      try {
        // The sync of all did not say which of them it failed for, and a later one says nothing of what was written before.
        born.mustReplace = true;
        await this.#replaceIfFailed(basename(dirname(files[at] as string)), born);
        born.isDurable = true;
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        areAllDurable = false;
      }
    return areAllDurable;
  }

  /** Whether nothing is in the place of a folder. */
  async #isRemoved(directory: string): Promise<boolean> {
    try {
      return (await this.#options.disk.list(directory)) === undefined;
    } catch {
      return false;
    }
  }

  /** Of two births of one project, the first is of a folder that somebody has removed. */
  #isLater(handle: string, than: string | undefined): boolean {
    const [place, other] = [handle, than].map((one) => one && this.#log.newest(one));
    if (!place || !other) return than === undefined || other === undefined;
    return comparePlaces(place, other) > 0;
  }

  /** On a full disk the mark stays as it was: only `bunkms recover` reads it. */
  async #markSettled(): Promise<void> {
    try {
      await this.#log.markSettled();
    } catch (error) {
      if (!hasCode(error, 'disk_full')) throw error;
    }
  }

  /** Syncs the folders of all new projects, when the engine closes. */
  async #syncBirths(): Promise<void> {
    const { disk, projectsDir } = this.#options;
    const born = [...this.#born].filter(
      ([, { isDurable, unwritten }]) => !isDurable && unwritten === undefined,
    );
    for (const [project, one] of born) await this.#replaceIfFailed(project, one);
    if (born.length > 0) {
      await disk.syncFiles(born.map(([project]) => join(projectsDir, project, PROJECT_FILE)));
      await disk.syncDirectory(projectsDir);
    }
    if ([...this.#born.values()].every(({ unwritten }) => unwritten === undefined)) await this.#markSettled();
  }

  /** Whether the file can be parsed. Then it is never replaced. */
  async #isProjectFile(path: string): Promise<boolean> {
    try {
      const content = await this.#options.disk.read(path, SMALL_FILE_BYTES_MAX);
      return content !== undefined && typeof JSON.parse(content.toString()) === 'object';
    } catch (error) {
      if (error instanceof SyntaxError) return false;
      // A link or a pipe: opening the project reports it.
      if (hasCode(error, 'project_damaged')) return true;
      throw error;
    }
  }

  /** Reads from the catalogs which project each handle of the log has, and what the catalogs cover. */
  async #readCatalogs(): Promise<void> {
    const handles = new Set([...this.#log.handles, ...this.#log.stuck.handles]);
    if (handles.size === 0) return;
    const { disk, projectsDir } = this.#options;
    const names = ((await disk.list(projectsDir)) ?? []).values();
    const known: KnownCatalog[] = [];
    const readSome = async () => {
      for (const project of names) {
        if (this.#isClosed) return;
        if (projectIdSchema.safeParse(project).data !== project) continue;
        const start = await this.#startOf(project).catch(() => undefined);
        // The store of an open project has said it.
        if (start === undefined || !handles.has(start.handle) || this.#stores.has(start.handle)) continue;
        this.#projectOf.set(start.handle, project);
        const path = join(projectsDir, project, CATALOG_FILE);
        if (start.covered !== undefined) known.push({ path, handle: start.handle, covered: start.covered });
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readSome));
    // A process may have died between the new name of a catalog and its sync: the log is freed by durable ones
    // alone.
    for (const { handle, covered } of await this.#synced(known)) this.#log.coverTo(handle, covered);
  }

  /** Syncs catalogs together, or each by itself when that fails. @returns those that are durable. */
  async #synced(known: readonly KnownCatalog[]): Promise<readonly KnownCatalog[]> {
    const { disk } = this.#options;
    if (known.length === 0) return known;
    try {
      await disk.syncFiles(known.map(({ path }) => path));
      return known;
    } catch {
      const durable: KnownCatalog[] = [];
      for (const one of known)
        await disk.syncFiles([one.path]).then(
          () => durable.push(one),
          // Its parts stay in the log, or are carried.
          () => undefined,
        );
      return durable;
    }
  }

  /** Frees segments in the background. @param handle of a project whose commits wait for its checkpoint. */
  freeSegments(handle: string | undefined): void {
    if (this.#isClosed) return;
    if (handle === undefined) this.#isFreeingWanted = true;
    else this.#checkpointsWanted.add(handle);
    this.#freeing ??= this.#freeWhileNeeded().finally(() => {
      this.#freeing = undefined;
      if (this.#checkpointsWanted.size > 0 || this.#isFreeingWanted) this.freeSegments(undefined);
    });
  }

  /**
   * Frees segments until enough are free: by checkpoints of open projects, by carrying for the rest. Never
   * rejects.
   */
  async #freeWhileNeeded(): Promise<void> {
    await this.scanned;
    while (!this.#isClosed) {
      const wanted = [...this.#checkpointsWanted];
      // The log lacks a segment, be it half full or not: on a full disk it cannot grow.
      const isWanted = this.#isFreeingWanted;
      this.#checkpointsWanted.clear();
      this.#isFreeingWanted = false;
      await this.#checkpointOpen(wanted);
      if (!isWanted && !this.#log.shouldFree) return;
      const pinning = this.#log.pinning();
      if (pinning.length === 0) return;
      await this.#checkpointOpen(pinning);
      try {
        const stuck = await this.#log.carryOldest({ write: (files) => this.#carry(files) });
        if (stuck.length > 0) this.#options.onStuck?.(stuck);
      } catch (error) {
        this.#options.onFreeingFailed?.(error);
        this.#log.refuseHeld(
          hasCode(error, 'disk_full')
            ? error
            : new AppError('storage_unavailable', { cause: error, retryAfterS: 1 }),
        );
        await setTimeout(FREE_AGAIN_MS, undefined, { ref: false });
      }
    }
  }

  /** Checkpoints of open projects: small ones share their syncs, and hold up nobody else. */
  async #checkpointOpen(handles: readonly string[]): Promise<void> {
    let together: EmbeddedStore[] = [];
    let bytes = 0;
    const end = async () => {
      const stores = together;
      [together, bytes] = [[], 0];
      if (stores.length > 0) await this.#checkpointAll(stores, false);
    };
    for (const handle of handles) {
      const store = this.#stores.get(handle);
      if (store === undefined || store.failed) continue;
      // It has its own turn, and others do not wait for it.
      if (store.snapshotBytes > SMALL_SNAPSHOT_BYTES || this.#checkpointing.settled(handle) !== undefined) {
        const hasMany = (this.#carried.get(handle) ?? 0) > CARRIED_FILES_MAX;
        if (store.isWorthCheckpoint || hasMany) await this.checkpoint(store).catch(() => undefined);
        continue;
      }
      together.push(store);
      bytes += store.snapshotBytes;
      if (together.length === CHECKPOINTS_TOGETHER || bytes > SNAPSHOTS_TOGETHER_BYTES) await end();
    }
    await end();
  }

  #carry(contents: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]> {
    const placing = this.#carriedFolders.run(CARRIED_FOLDER, () => this.#place(contents));
    this.#placing = placing.catch(() => undefined);
    return placing;
  }

  /** Writes files of carried parts into the folders of their projects, with a few syncs for all. */
  async #place(contents: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]> {
    const { disk, projectsDir } = this.#options;
    const outcomes: (AppError | undefined)[] = contents.map(() => undefined);
    const files: Placed[] = [];
    const unsafe = await this.#syncBirthsOf(contents.map(({ handle }) => this.#projectOf.get(handle)));
    for (const [at, { handle, segment }] of contents.entries()) {
      const project = this.#projectOf.get(handle);
      if (project === undefined) outcomes[at] = new AppError('project_not_found');
      else if (unsafe.has(project)) outcomes[at] = unsafe.get(project);
      else {
        const to = join(projectsDir, project, CARRIED_FOLDER, String(segment));
        files.push({ at, tmp: join(this.#tmp, randomBytes(12).toString('hex')), to, isFolderNew: false });
      }
    }
    const failed = (at: number, error: unknown) => {
      if (!(error instanceof AppError)) throw error;
      if (error.code === 'disk_full') throw error;
      outcomes[at] = error;
    };
    try {
      const written = await disk.writeFiles(
        files.map(({ at, tmp }) => ({ path: tmp, content: contents[at]?.content })),
      );
      for (const failure of written) if (failure !== undefined) throw failure;
      await disk.syncFiles(files.map(({ tmp }) => tmp));
      const placed: Placed[] = [];
      for (const file of files)
        try {
          file.isFolderNew = await disk.makeDirectory(dirname(file.to));
          await disk.rename(file.tmp, file.to);
          placed.push(file);
        } catch (error) {
          failed(file.at, error);
        }
      await this.#syncPlaced(placed, failed);
    } finally {
      for (const { tmp } of files) await disk.remove(tmp).catch(() => false);
    }
    for (const [at, { handle }] of contents.entries()) {
      this.#carried.set(handle, (this.#carried.get(handle) ?? 0) + 1);
      const project = this.#projectOf.get(handle);
      // The next opening writes the files again, so the names that wait for a sync need not stay in memory.
      if (outcomes[at] === undefined && project !== undefined && !this.#stores.has(handle))
        this.#writer.dropWritten(project);
    }
    return outcomes;
  }

  /** Syncs the files, and the names of new folders. */
  async #syncPlaced(placed: readonly Placed[], failed: (at: number, error: unknown) => void): Promise<void> {
    const { disk } = this.#options;
    const sync = async (some: readonly Placed[]) => {
      await disk.syncFiles(some.map(({ to }) => to));
      for (const { to, isFolderNew } of some) if (isFolderNew) await disk.syncDirectory(dirname(dirname(to)));
    };
    try {
      await sync(placed);
    } catch {
      for (const one of placed) await sync([one]).catch((error: unknown) => failed(one.at, error));
    }
  }
}

/** What a start finds in a catalog. */
interface KnownCatalog {
  readonly path: string;
  readonly handle: string;
  readonly covered: FramePlace;
}

/** A file of carried parts that is being put in place. */
interface Placed {
  /** Its index among the contents. */
  readonly at: number;
  readonly tmp: string;
  readonly to: string;
  isFolderNew: boolean;
}

function newBorn(
  handle: string,
  { unwritten, unopened }: Partial<Pick<Born, 'unwritten' | 'unopened'>>,
): Born {
  return { handle, unwritten, unopened, isDurable: false, isUnseen: false, mustReplace: false };
}

/** Keys of a project that is being made. */
export interface BirthKeys extends PartKeys {
  /** The version that its parts are sealed under. */
  readonly version: number;
}

/** A part of kind `gone` is not sealed. */
const NO_KEYS: PartKeys = { subkey: () => undefined };
