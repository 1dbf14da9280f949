import { join } from 'node:path';
import { defined } from '@bundoc/shared/contract/defined';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { currentShare } from '@bundoc/shared/shares/share-key';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import { Births } from './births.ts';
import { CarriedFiles } from './carried-files.ts';
import { readCatalogStart } from './catalog/catalog-start.ts';
import { coverFromCatalogs } from './catalog-scan.ts';
import { CheckpointTurns } from './checkpoint-turns.ts';
import { type Disk, makeDirectoryDurably, removeLeftovers, TMP_FOLDER } from './disk/disk.ts';
import { writePart } from './disk/write-part.ts';
import type { Backlog } from './documents/backlog.ts';
import { DocumentWriter } from './documents/document-writer.ts';
import type { Place } from './log/layout.ts';
import { Log } from './log/log.ts';
import {
  type AttachedHandle,
  type FailedHandles,
  LOG_FOLDER,
  type LogEnd,
  type LogLimits,
  type LogStats,
  type PartSource,
} from './log/log-api.ts';
import type { PartKeys } from './log/part-seal.ts';
import type { PartReader } from './log/parts.ts';
import type { LogDisk, LogObserver } from './log/ports.ts';
import { LogFreeing } from './log-freeing.ts';
import { findOrphans } from './orphans.ts';
import type { CheckpointBytes, EnginePort, FileStore } from './store/file-store.ts';
import { openStore, type StoreOptions } from './store/open-store.ts';
import { handleIn, type LogOfProjects, readCarried } from './store/project-loader.ts';

export interface FilesEngineOptions {
  readonly disk: Disk;
  readonly logDisk: LogDisk;
  /** The existing data folder. */
  readonly dataDir: string;
  /** The existing folder that contains the folders of projects. */
  readonly projectsDir: string;
  /** 16 bytes. */
  readonly storageId: Buffer;
  /** Whether the storage has had a log: then a missing log was lost. */
  readonly mustExist: boolean;
  readonly logLimits: LogLimits;
  /**
   * Uncovered bytes in the log that trigger a checkpoint of an open project; fewer where the log is small.
   */
  readonly checkpointBytes: number;
  readonly backlog: Backlog;
  readonly clock?: Clock;
  readonly observer?: LogObserver;
  /** The first segment of the log that the archive may lack; undefined without an archive. */
  readonly keepFrom?: number | undefined;
  /** Rejects when another process holds the data folder; then nothing is written. */
  readonly beforeSegment?: () => Promise<void>;
  /** Called with the projects whose folders failed while the log was being freed. */
  readonly onStuck?: (failed: readonly FailedFolder[]) => void;
  /** Called when the log could not be freed. */
  readonly onFreeingFailed?: (error: unknown) => void;
}

/** Why the parts of a project stay in the folder of the log. */
export interface FailedFolder {
  readonly handle: string;
  /** undefined when no folder has the handle: somebody removed it, or moved it out of the storage. */
  readonly project: string | undefined;
  readonly cause: Error;
}

/**
 * The projects of a data folder: one log, one writer of document files, and the checkpoints that free
 * segments of the log.
 *
 * A project has a folder, `project.json`, a catalog, and its document files. A closed project takes about 200
 * bytes of memory in the log and the engine.
 */
export class FilesEngine implements EnginePort, LogOfProjects, AsyncDisposable {
  readonly checkpointBytes: CheckpointBytes;
  readonly storageId: Buffer;
  /** Resolves once the log knows what every catalog covers. Never rejects. */
  readonly scanned: Promise<void>;
  readonly #options: FilesEngineOptions;
  readonly #log: Log;
  readonly #writer: DocumentWriter;
  readonly #births: Births;
  readonly #carried: CarriedFiles;
  readonly #checkpoints: CheckpointTurns;
  readonly #freeing: LogFreeing;
  /** Open stores by their handles. */
  readonly #stores = new Map<string, FileStore>();
  /** The project of each handle. */
  readonly #projectOf = new Map<string, string>();
  readonly #scanEnded = Promise.withResolvers<void>();
  #isClosed = false;

  private constructor(options: FilesEngineOptions, log: Log) {
    const { dataDir, disk, projectsDir, backlog, clock = systemClock } = options;
    this.#options = options;
    this.#log = log;
    this.#writer = new DocumentWriter({ disk, backlog });
    const { segmentBytes, segmentsMax } = options.logLimits;
    const most = (segmentBytes * segmentsMax) / 4;
    this.checkpointBytes = { least: Math.min(options.checkpointBytes, most), most };
    this.storageId = options.storageId;
    this.scanned = this.#scanEnded.promise;
    const place = { disk, log, projectsDir, projectOf: this.#projectOf, tmp: join(dataDir, TMP_FOLDER) };
    const births = new Births({ ...place, drop: (project, handle) => this.drop(project, handle) });
    const isOpen = (handle: string) => this.#stores.has(handle);
    const carried = new CarriedFiles({ ...place, isOpen, writer: this.#writer });
    const { tmp } = place;
    const checkpoints = new CheckpointTurns({
      disk,
      clock,
      tmp,
      log,
      carried,
      logOfProjects: this,
      stores: this.#stores,
    });
    const onStuck = (failed: FailedHandles) =>
      options.onStuck?.(
        [...failed].map(([handle, cause]) => ({ handle, project: this.#projectOf.get(handle), cause })),
      );
    const { onFreeingFailed: onFailed } = options;
    this.#freeing = new LogFreeing({ log, checkpoints, carried, onStuck, onFailed, scanned: this.scanned });
    [this.#births, this.#carried, this.#checkpoints] = [births, carried, checkpoints];
  }

  /**
   * Opens the log, without any key.
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
      storageId,
      mustExist,
      limits: logLimits,
      writer: () => currentShare().subject,
      ...defined({ clock: options.clock, beforeSegment: options.beforeSegment, keepFrom: options.keepFrom }),
      observer: { ...observer, onPressure: (handle) => engine?.freeSegments(handle) },
    });
    engine = new FilesEngine(options, log);
    engine.#scan();
    // Before anything is written, because freed space becomes available with the next segment.
    if (log.shouldFree) engine.freeSegments(undefined);
    return engine;
  }

  get stats(): LogStats {
    return this.#log.stats;
  }

  /** Reads in the background which parts the catalogs cover. */
  #scan(): void {
    const { disk, projectsDir } = this.#options;
    const { resolve } = this.#scanEnded;
    void coverFromCatalogs({
      disk,
      projectsDir,
      log: this.#log,
      projectOf: this.#projectOf,
      isOpen: (handle) => this.#stores.has(handle),
      isEnded: () => this.#isClosed,
    }).then(resolve, () => resolve());
  }

  /**
   * Frees segments in the background. @param handle that of a project whose commits wait for its checkpoint.
   */
  freeSegments(handle: string | undefined): void {
    this.#freeing.free(handle);
  }

  // For the archive.

  /** The log from a segment on, or all that is live, as far as it is durable. */
  logEnd(from: number | undefined): LogEnd {
    return this.#log.shippable(from);
  }

  /** Freed segments of the log from this one on are kept, within a bound, since the archive lacks them. */
  keepFrom(segment: number): void {
    this.#log.keepFrom(segment);
  }

  // Reading the log.

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

  /** As {@link Births.create}. */
  create(project: string, cipher: ProjectCipher, projectFile: Buffer): Promise<void> {
    return this.#births.create(project, cipher, projectFile);
  }

  /** @throws AppError `project_damaged`, and those of the disk. */
  async openStore(options: StoreOptions): Promise<FileStore> {
    await this.#births.ensureNamed();
    const { store, loaded } = await openStore(options, { log: this, writer: this.#writer, engine: this });
    const { handle, projectFile } = loaded;
    this.#stores.set(handle, store);
    this.#projectOf.set(handle, options.project);
    this.#carried.found(handle, loaded.carriedFiles);
    if (this.#carried.areMany(handle)) void this.checkpoint(store).catch(() => undefined);
    // The catalog's copy of `project.json` must include every key version that seals something.
    if (projectFile.equals(options.projectFile)) return store;
    const [failure] = await this.#checkpoints.together([store], true);
    if (failure === undefined) return store;
    await store[Symbol.asyncDispose]();
    throw failure;
  }

  /** Ends a project in the log before it is removed, or after it has moved away. The project is closed. */
  async forget(project: string): Promise<void> {
    await this.#writer.drop(project);
    for (const handle of await this.#findHandles(project)) await this.drop(project, handle);
  }

  /** Every handle that the log or a carried file may use for the project. */
  async #findHandles(project: string): Promise<Set<string>> {
    const { disk, projectsDir } = this.#options;
    const handles = new Set<string>();
    for (const [handle, of] of this.#projectOf) if (of === project) handles.add(handle);
    const start = (await readCatalogStart(disk, projectsDir, project))?.handle;
    if (start !== undefined) handles.add(start);
    if (handles.size > 0) return handles;
    // The catalog is damaged.
    const carried = await readCarried(disk, join(projectsDir, project)).catch(() => []);
    for (const file of carried) {
      const handle = handleIn(file);
      if (handle !== undefined) handles.add(handle);
    }
    return handles;
  }

  /** Ends a handle in the log: the project is gone, or has another handle. */
  async drop(project: string, handle: string): Promise<void> {
    // Even if the log has no part left: until the next segment begins, a start finds freed segments again.
    await writePart(this.#log, { handle, project, keys: NO_KEYS }, { kind: 'gone', keyVersion: 0 });
    this.#projectOf.delete(handle);
    this.#carried.forget(handle);
    // Earlier parts may still be on their way into the folder, which is about to be removed.
    await this.#carried.placed();
    await this.#log.stuck.remove(handle);
  }

  /**
   * Registers a project that arrived with a new handle, by an empty part in the log. So the log knows every
   * project, and frames that it lost before this part did not belong to the project. Handles of an
   * interrupted arrival end.
   */
  async arrived(project: string, handle: string, keys: ProjectCipher): Promise<void> {
    await this.scanned;
    const former = [...this.#projectOf].filter(([known, of]) => of === project && known !== handle);
    this.#projectOf.set(handle, project);
    await writePart(this.#log, { handle, project, keys }, { kind: 'data', keyVersion: keys.version });
    for (const [known] of former) await this.drop(project, known);
  }

  /**
   * Ends handles of a former folder of the project, which is no longer there. Call it once another folder is
   * complete in its place: until then, the former one may be put back.
   */
  async endOrphans(project: string, keys: ProjectCipher): Promise<void> {
    const orphans = await findOrphans(this.#log, this.storageId, this.#projectOf, { project, keys });
    for (const handle of orphans) await this.drop(project, handle);
  }

  /**
   * Copies everything that only the log has into the folders of the projects, without any key. Afterwards
   * each folder is complete. No one else may write.
   *
   * @returns projects whose folders failed, and handles without a project. Their parts stay in the log's
   *   folder.
   */
  async carryAll(): Promise<readonly string[]> {
    await this.scanned;
    const stuck = await this.#log.carryAll(this.#carried);
    return [...stuck.keys()].map((handle) => this.#projectOf.get(handle) ?? handle);
  }

  /** Accepts, as an administrator, the loss of frames of unknown projects. */
  acceptLoss(): Promise<void> {
    return this.#log.acceptLoss();
  }

  /** Waits for running work, and closes the log. The caller has closed the stores. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#freeing.stop();
    await this.#checkpoints.drained();
    await this.#writer.stop();
    await this.#births.settled();
    await this.#log[Symbol.asyncDispose]();
  }

  // For the stores.

  attach(source: PartSource, after: Place | undefined): AttachedHandle {
    return this.#log.attach(source, after);
  }

  /** As {@link CheckpointTurns.of}. */
  checkpoint(store: FileStore): Promise<void> {
    return this.#checkpoints.of(store);
  }

  async closed(store: FileStore): Promise<void> {
    while (this.#checkpoints.settled(store.handle) !== undefined)
      await this.#checkpoints.settled(store.handle);
    if (this.#stores.get(store.handle) === store) this.#stores.delete(store.handle);
    if (store.failed) await this.#writer.drop(store.project);
    else if (!this.#log.isUncovered(store.handle)) this.#writer.forget(store.project);
  }
}

/** A part of kind `gone` is not sealed. */
const NO_KEYS: PartKeys = { subkey: () => undefined };
