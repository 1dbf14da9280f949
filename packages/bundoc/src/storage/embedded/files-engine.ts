import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
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
import { HANDLE_BYTES, type Place } from '../../engine/files/log/layout.ts';
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
  CARRIED_FOLDER,
  LoadedStore,
  type LogOfProjects,
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
  /** Whether the storage had a log before. */
  readonly mustExist: boolean;
  readonly logLimits: LogLimits;
  /** Bytes of the log from which on an open project gets a checkpoint; less, where the log is small. */
  readonly checkpointBytes: number;
  readonly backlog: Backlog;
  readonly clock?: Clock;
  readonly observer?: LogObserver;
  /** Rejects when the data folder is not this process's any more: nothing is written then. */
  readonly beforeSegment?: () => Promise<void>;
  /** Told of projects whose own folders failed when the log had to be freed: they are damaged until those work. */
  readonly onStuck?: (handles: readonly string[]) => void;
  /** Told when the log could not be freed. */
  readonly onFreeingFailed?: (error: unknown) => void;
}

export const LOG_FOLDER = 'log';
export const TMP_FOLDER = 'tmp';
/** Open projects whose checkpoints share their syncs. */
const CHECKPOINTS_TOGETHER = 512;
/** Catalogs whose heads are read side by side. */
const READS_AT_ONCE = 16;
const FREE_AGAIN_MS = 1_000;

/** A project that has no catalog yet. */
interface Born {
  readonly handle: string;
  /** Its `project.json`, while that could not be written. */
  unwritten: Buffer | undefined;
  /** Whether folder and `project.json` are durable by themselves, and not by the log alone. */
  isDurable: boolean;
  /** Whether it is not known what the folder has: it could not be read when the service started. */
  isUnseen: boolean;
  /** Whether a sync of `project.json` has failed: no later sync makes durable what was written before. */
  mustReplace: boolean;
}

/**
 * The projects of a data folder: one log, one writer of document files, and the checkpoints by which the log gets its segments back.
 *
 * A project costs a folder, `project.json`, a catalog, and its document files. Of one that is closed, the log and this keep about 200 bytes.
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
  /** Whose parts a handle of the log has. */
  readonly #projectOf = new Map<string, string>();
  /** Handles that have files of carried parts. */
  readonly #carried = new Set<string>();
  readonly #checkpointing = new KeyedMutex();
  /** Handles of projects that wait for their own checkpoint. */
  readonly #wanted = new Set<string>();
  #relieving: Promise<void> | undefined;
  #isPressed = false;
  #isClosed = false;
  /** Resolves once it is known of all catalogs what they cover. */
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
   * Opens the log, without any key, and writes what a crash kept from being written of projects that were new.
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
      observer: { ...observer, onPressure: (handle) => engine?.press(handle) },
    });
    engine = new FilesEngine(options, log);
    try {
      await engine.#settle();
    } catch (error) {
      await log[Symbol.asyncDispose]();
      throw error;
    }
    engine.#startScan();
    return engine;
  }

  get stats(): LogStats {
    return this.#log.stats;
  }

  // What the log has of projects.

  handleOf(project: string): string | undefined {
    return this.#born.get(project)?.handle;
  }

  newest(handle: string): Place | undefined {
    return this.#log.newest(handle);
  }

  isDoubtful(handle: string, covered: Place | undefined): boolean {
    return this.#log.isDoubtful(handle, covered);
  }

  reader(): PartReader {
    return this.#log.reader();
  }

  stuckOf(handle: string): Promise<readonly Buffer[]> {
    return this.#log.stuck.handles.has(handle) ? this.#log.stuck.read(handle) : Promise.resolve([]);
  }

  // Projects.

  /**
   * Makes a project that is not there: its birth in the log is durable, its folder and `project.json` are written and not synced, since a start
   * writes them again out of the log. Nobody else makes or opens the project meanwhile.
   */
  async create(project: string, directory: string, keys: BirthKeys, projectFile: Buffer): Promise<void> {
    const handle = randomBytes(HANDLE_BYTES).toString('hex');
    const birth = { project, projectFile };
    await this.#write({ handle, project, keys }, { kind: 'birth', keyVersion: keys.version, birth });
    const born: Born = newBorn(handle, { unwritten: projectFile });
    this.#born.set(project, born);
    this.#projectOf.set(handle, project);
    await this.writeBirth(project, directory);
  }

  /** Writes the `project.json` of a project that is only in the log, since that failed when it was made. */
  async writeBirth(project: string, directory: string): Promise<void> {
    const born = this.#born.get(project);
    if (born?.unwritten === undefined) return;
    if (born.isUnseen) await this.#writeIfMissing(directory, born.unwritten);
    else await this.#writeProjectFile(directory, born.unwritten);
    born.unwritten = undefined;
    born.isUnseen = false;
  }

  /** Makes the folder of a project durable by itself, before something in it is replaced. */
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

  /** Writes the bytes of `project.json` into a new file, since a sync of the present one has failed. */
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
   * Writes the `project.json` of a birth where there is none that can be parsed. A project that was deleted, or is elsewhere, is not made
   * again; whether the mark is true is asked when it is opened.
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
    const { store, loaded } = await openStore(options, { log: this, writer: this.#writer, engine: this });
    const { handle, projectFile } = loaded;
    this.#stores.set(handle, store);
    this.#projectOf.set(handle, options.project);
    if (loaded.hasCarried || this.#log.stuck.handles.has(handle)) this.#carried.add(handle);
    const isCopied = 
      projectFile?.equals(options.projectFile) ??
      loaded.versions.values().every((version) => version === options.cipher.version);
    if (isCopied) return store;
    // The copy of `project.json` in the catalog is never older than a key version that something is sealed under.
    const [failure] = await this.#checkpointAll([store], true);
    if (failure === undefined) return store;
    await store[Symbol.asyncDispose]();
    throw failure;
  }

  /** The log has nothing of a project any more: it is to be removed, or was moved away. Nobody has it open. */
  async forget(project: string): Promise<void> {
    await this.#writer.drop(project);
    const handle = this.#born.get(project)?.handle ?? (await this.#startOf(project))?.handle;
    if (handle !== undefined) await this.drop(project, handle);
    // Not before: who tries again after a failure must find the handle.
    this.#born.delete(project);
  }

  /** The log has nothing under a handle any more: the project is gone, or has another handle. */
  async drop(project: string, handle: string): Promise<void> {
    if (this.#log.newest(handle) !== undefined)
      await this.#write({ handle, project, keys: NO_KEYS }, { kind: 'gone', keyVersion: 0 });
    this.#projectOf.delete(handle);
    this.#carried.delete(handle);
    await this.#log.stuck.remove(handle);
  }

  /**
   * A project has come with a new handle, of which the log has nothing. Frames that the log lost before, nobody knows whose, had no parts of it:
   * an empty part behind them says so.
   */
  async arrived(project: string, handle: string, keys: BirthKeys): Promise<void> {
    if (this.#log.stats.holes === 0) return;
    this.#projectOf.set(handle, project);
    await this.#write({ handle, project, keys }, { kind: 'data', keyVersion: keys.version });
  }

  /** Says durably that every project has its folder, as the start has made sure. Nobody writes. */
  markSettled(): Promise<void> {
    return this.#log.markSettled();
  }

  /**
   * Copies everything that only the log has into the folders of the projects, without any key, so that each folder is all of its project. Nobody
   * writes.
   *
   * @returns projects whose folders failed, and handles that no project names: what is theirs stays with the log.
   */
  async carryAll(): Promise<readonly string[]> {
    await this.scanned;
    const stuck = await this.#log.carryAll({ write: (files) => this.#carry(files) });
    await this.#log.markSettled();
    return stuck.map((handle) => this.#projectOf.get(handle) ?? handle);
  }

  /** An administrator accepts what frames have cost that the log lost, nobody knows whose. */
  acceptLoss(): Promise<void> {
    return this.#log.acceptLoss();
  }

  /** What the clear head of a project's catalog says; undefined when there is none that can be read. */
  async #startOf(project: string): Promise<CatalogStart | undefined> {
    const { disk, projectsDir } = this.#options;
    const path = join(projectsDir, project, CATALOG_FILE);
    const start = await disk.readStart(path, CATALOG_START_BYTES).catch((error: unknown) => {
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    });
    return start && parseCatalogStart(start);
  }

  /** Waits for what is under way, and closes. The stores are closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.scanned;
    await this.#relieving;
    await this.#checkpointing.drained();
    await this.#writer.stop();
    // The next start would do it.
    await this.#syncBirths().catch(() => undefined);
    await this.#log[Symbol.asyncDispose]();
  }

  // What stores ask of it.

  attach(source: PartSource, after: Place | undefined): AttachedHandle {
    return this.#log.attach(source, after);
  }

  async checkpoint(store: EmbeddedStore): Promise<void> {
    // One that is under way began before the latest commits.
    const [failure] = await this.#checkpointAll([store], false);
    if (failure !== undefined) throw failure;
  }

  async closed(store: EmbeddedStore): Promise<void> {
    while (this.#checkpointing.settled(store.handle) !== undefined)
      await this.#checkpointing.settled(store.handle);
    if (this.#stores.get(store.handle) === store) this.#stores.delete(store.handle);
    if (store.failed) await this.#writer.drop(store.project);
    else if (!this.#log.isUncovered(store.handle)) this.#writer.forget(store.project);
  }

  /** @returns for each store undefined, or why it was not done. Of each one at a time. */
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
      done: (source, mark) => this.#covered(source, mark),
    };
  }

  async #covered(source: CheckpointSource, mark: LogMark | undefined): Promise<void> {
    const { handle, project, directory } = source;
    this.#born.delete(project);
    if (mark !== undefined) this.#log.cover(handle, mark);
    if (!this.#carried.delete(handle)) return;
    // Superfluous, and not before the snapshot: whatever is left of them is passed over.
    await this.#options.disk.removeTree(join(directory, CARRIED_FOLDER));
    await this.#log.stuck.remove(handle);
  }

  async #writeAgain(source: CheckpointSource): Promise<void> {
    const { disk } = this.#options;
    const { project, directory, cipher, handle, covered, files } = source;
    const born = this.#born.get(project);
    if (born !== undefined && !born.isDurable) {
      born.mustReplace = true;
      await this.#replaceIfFailed(project, born);
    }
    const carried = await readCarried(disk, directory);
    const loaded = new LoadedStore();
    await replayParts({ project, directory, disk, cipher, log: this }, { handle, covered, carried }, (part) =>
      loaded.replay(part.plaintext),
    );
    for (const [fileName, sealed] of loaded.sealedByFile) {
      // What waits is later.
      if (files.pendingWrites.has(fileName)) continue;
      if (sealed === undefined) files.remove(fileName);
      else files.put(fileName, Buffer.from(sealed));
    }
  }

  // The log as a whole.

  /** Writes a part of a project that is not open, and waits until it is durable. */
  async #write(
    of: { readonly handle: string; readonly project: string; readonly keys: PartKeys },
    part: Pick<TakenPart, 'kind' | 'keyVersion' | 'birth'>,
  ): Promise<void> {
    const done = Promise.withResolvers<void>();
    let isTaken = false;
    const source: PartSource = {
      ...of,
      makesRoom: part.kind === 'gone',
      take: () => {
        if (isTaken) return undefined;
        isTaken = true;
        return {
          ...part,
          plaintext: [],
          commits: 0,
          durable: () => undefined,
          answer: done.resolve,
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
      await done.promise;
    } finally {
      attached.detach();
    }
  }

  /** Writes the folders of births that are not there, or not as they were, and makes all of them durable. */
  async #settle(): Promise<void> {
    const { disk, projectsDir } = this.#options;
    const written: Born[] = [];
    const files: string[] = [];
    let areAllThere = true;
    for await (const { handle, project, projectFile } of this.#log.births()) {
      if (projectIdSchema.safeParse(project).data !== project) continue;
      const directory = join(projectsDir, project);
      const born = newBorn(handle, {});
      let names: readonly string[] | undefined;
      try {
        names = await this.#writeIfMissing(directory, projectFile);
        files.push(join(directory, PROJECT_FILE));
        written.push(born);
      } catch (error) {
        // Its own folder fails: the others are served. It is written when it is opened.
        if (!(error instanceof AppError)) throw error;
        [born.unwritten, born.isUnseen, areAllThere] = [projectFile, true, false];
      }
      if (names?.includes(CATALOG_FILE) !== true) this.#born.set(project, born);
      this.#projectOf.set(handle, project);
    }
    if (files.length > 0) {
      if (!(await this.#syncEach(files, written))) areAllThere = false;
      await disk.syncDirectory(projectsDir);
    }
    if (areAllThere) await this.#markSettled();
  }

  /** Files of births, together; each by itself when that fails. @returns whether all are durable. */
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
        // Which of them the sync has failed for is not known.
        born.mustReplace = true;
        await disk.syncFiles([files[at] as string]);
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        areAllDurable = false;
      }
    return areAllDurable;
  }

  /** On a full disk the mark stays what it was: only `bunkms recover` asks for it. */
  async #markSettled(): Promise<void> {
    try {
      await this.#log.markSettled();
    } catch (error) {
      if (!hasCode(error, 'disk_full')) throw error;
    }
  }

  /** Makes the folders of all new projects durable by themselves, at the end. */
  async #syncBirths(): Promise<void> {
    const { disk, projectsDir } = this.#options;
    const born = [...this.#born].filter(
      ([, { isDurable, unwritten }]) => !isDurable && unwritten === undefined,
    );
    if (born.length > 0) {
      await disk.syncFiles(born.map(([project]) => join(projectsDir, project, PROJECT_FILE)));
      await disk.syncDirectory(projectsDir);
    }
    if ([...this.#born.values()].every(({ unwritten }) => unwritten === undefined)) await this.#markSettled();
  }

  /** Whether there is one that can be parsed: such a one is never replaced. */
  async #isProjectFile(path: string): Promise<boolean> {
    try {
      const content = await this.#options.disk.read(path, SMALL_FILE_BYTES_MAX);
      return content !== undefined && typeof JSON.parse(content.toString()) === 'object';
    } catch (error) {
      if (error instanceof SyntaxError) return false;
      // Somebody's link, or a pipe: the project says so when it is opened.
      if (hasCode(error, 'project_damaged')) return true;
      throw error;
    }
  }

  /** Learns whose handles the log has, and what their catalogs cover already. */
  async #readCatalogs(): Promise<void> {
    const handles = new Set([...this.#log.handles, ...this.#log.stuck.handles]);
    if (handles.size === 0) return;
    const { disk, projectsDir } = this.#options;
    const names = ((await disk.list(projectsDir)) ?? []).values();
    const readSome = async () => {
      for (const project of names) {
        if (this.#isClosed) return;
        if (projectIdSchema.safeParse(project).data !== project) continue;
        const start = await this.#startOf(project).catch(() => undefined);
        // Of an open project, this is known.
        if (start === undefined || !handles.has(start.handle) || this.#stores.has(start.handle)) continue;
        this.#projectOf.set(start.handle, project);
        if (start.covered !== undefined) this.#log.coverTo(start.handle, start.covered);
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readSome));
  }

  /** The log fills: frees segments in the background. @param handle of a project that waits for its own parts to be covered. */
  press(handle: string | undefined): void {
    if (this.#isClosed) return;
    if (handle === undefined) this.#isPressed = true;
    else this.#wanted.add(handle);
    this.#relieving ??= this.#relieve().finally(() => {
      this.#relieving = undefined;
      if (this.#wanted.size > 0 || this.#isPressed) this.press(undefined);
    });
  }

  /** Frees segments as long as there are too few. Never rejects. */
  async #relieve(): Promise<void> {
    await this.scanned;
    while (!this.#isClosed) {
      const wanted = [...this.#wanted];
      this.#wanted.clear();
      this.#isPressed = false;
      await this.#checkpointOpen(wanted);
      if (!this.#log.shouldFree) return;
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

  async #checkpointOpen(handles: readonly string[]): Promise<void> {
    const open = handles.map((handle) => this.#stores.get(handle)).filter((store) => store?.failed === false);
    for (let at = 0; at < open.length; at += CHECKPOINTS_TOGETHER)
      await this.#checkpointAll(open.slice(at, at + CHECKPOINTS_TOGETHER) as EmbeddedStore[], false);
  }

  /** Puts files of carried parts into the folders of their projects, with a few syncs for all. */
  async #carry(contents: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]> {
    const { disk, projectsDir } = this.#options;
    const outcomes: (AppError | undefined)[] = contents.map(() => undefined);
    const files: Placed[] = [];
    for (const [at, { handle, segment }] of contents.entries()) {
      const project = this.#projectOf.get(handle);
      if (project === undefined) outcomes[at] = new AppError('project_not_found');
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
      this.#carried.add(handle);
      const project = this.#projectOf.get(handle);
      // The next opening writes its files again: what they are is not kept in memory for ever.
      if (outcomes[at] === undefined && project !== undefined && !this.#stores.has(handle))
        this.#writer.dropWritten(project);
    }
    return outcomes;
  }

  /** The files, and the names of their folders. */
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

/** A file of carried parts on its way. */
interface Placed {
  /** Which of those that were asked for. */
  readonly at: number;
  readonly tmp: string;
  readonly to: string;
  isFolderNew: boolean;
}

function newBorn(handle: string, { unwritten }: { unwritten?: Buffer }): Born {
  return { handle, unwritten, isDurable: false, isUnseen: false, mustReplace: false };
}

/** Of a project that is being made. */
export interface BirthKeys extends PartKeys {
  /** The version that its parts are sealed under. */
  readonly version: number;
}

/** A part of kind `gone` is not sealed. */
const NO_KEYS: PartKeys = { subkey: () => undefined };
