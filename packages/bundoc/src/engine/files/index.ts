import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Logger } from '@bundoc/shared/logs/logger';
import { refuseFolderOf } from '@bundoc/shared/process/own-folder';
import type { LostProjects } from '../lost-projects.ts';
import { SET_ASIDE_FOLDER } from '../moves/set-aside.ts';
import { positionAt } from '../port/positions.ts';
import { limitsAfter, SEAL_LIMITS } from '../port/seal-budget.ts';
import { formatProjectFile } from '../projects/project-file.ts';
import type { EngineDeps, StorageCount, StorageEngine } from '../storage-engine.ts';
import { type ArchiveThread, NO_ARCHIVE } from './archive/archive-thread.ts';
import { PreparedArchive } from './archive/open-archive.ts';
import { INDEX_FILE } from './catalog/index-file.ts';
import { lockDataFolder } from './data-lock.ts';
import { type Disk, TMP_FOLDER } from './disk/disk.ts';
import { openNodeDisk } from './disk/node-disk.ts';
import type { Backlog } from './documents/backlog.ts';
import { createSealedCache } from './documents/sealed-cache.ts';
import type { FailedFolder, FilesEngine } from './files-engine.ts';
import type { LogObserver } from './log/ports.ts';
import { ExpiryMarksInFolders } from './projects/expiry-marks.ts';
import { FileProjects, type FolderEngine } from './projects/file-projects.ts';
import { MOVED_FOLDER } from './projects/moved-folder.ts';
import { receiptsInFolder } from './receipts-in-folder.ts';
import { KeptMemory } from './snapshots/kept-memory.ts';
import { openFolder } from './storage-folder.ts';
import { FilesMoveSource } from './transfer/move-source.ts';

export interface FileStorageConfig {
  readonly dataDir: string;
  readonly logBytes: number;
  /** Where the log and the folders of projects are shipped to; undefined for nowhere. */
  readonly archive: string | undefined;
  /** Bytes of the cache of sealed documents. */
  readonly cacheBytes: number;
  /** Bytes of superseded documents that snapshots of all projects keep. */
  readonly snapshotBytes: number;
}

/**
 * The part of the composition root for storage in files.
 *
 * @throws ConfigError, DataFolderInUse, StartRefused, LogDamaged, and errors of the disk.
 */
export async function openFileStorage(
  config: FileStorageConfig,
  { clock, quota, logger }: EngineDeps,
  wrapDisk: (disk: Disk) => Disk = (disk) => disk,
): Promise<StorageEngine> {
  await using stack = new AsyncDisposableStack();
  const dataDir = resolve(config.dataDir);
  refuseFolderOf('BunKMS', dataDir, 'BUNDOC_DATA_DIR');
  const folder = stack.use(DataFolder.make(dataDir, 'BUNDOC_DATA_DIR'));
  const lock = stack.use(lockDataFolder(dataDir));
  const ports = { dataDir, clock, logger };
  const nodeDisk = wrapDisk(stack.use(openNodeDisk(dataDir)));
  const archive = await PreparedArchive.prepare(config.archive, nodeDisk, ports);
  const { disk } = archive;
  const log = watchLog(logger);
  const { identity, engine, backlog, projectsDir, lost } = stack.use(
    await openFolder(
      { dataDir, folder, disk, lock, clock },
      { logBytes: config.logBytes, isArchived: archive.isConfigured, ...log.watch },
    ),
  );
  const shipping = stack.use(archive.start(engine));
  const floor = positionAt((await identity.read()).lossAcceptedMs ?? 0);
  const cache = createSealedCache(config.cacheBytes);
  const keptMemory = new KeptMemory(config.snapshotBytes);
  const forget = async (project: string) => {
    cache.deleteAll(project);
    await engine.forget(project);
  };
  const tmp = join(dataDir, TMP_FOLDER);
  const running = stack.move();
  return {
    place: dataDir,
    identity,
    receipts: receiptsInFolder(disk, dataDir, tmp),
    isShared: false,
    lost,
    counts: countsOf({ engine, lost, keptMemory, backlog, shipping, syncSeconds: log.syncSeconds }),
    isReady: async () => !engine.stats.writesStopped && (await canWrite(disk, tmp)),
    projects: (keys, storage, onSetAside, settle) =>
      new FileProjects({
        disk,
        directory: projectsDir,
        tmp,
        keys,
        clock,
        storage,
        setAside: join(dataDir, SET_ASIDE_FOLDER),
        onSetAside,
        settle,
        isLost: (project) => lost.has(project),
        engine: folderEngine(engine, forget),
      }),
    expiry: new ExpiryMarksInFolders({ disk, directory: projectsDir, clock }),
    openStore: (project, { cipher, file, entries }, watch, unknownSealers) =>
      engine.openStore({
        ...watch,
        positionFloor: () => Math.max(watch.positionFloor(), floor),
        onIndexFailure: (error) => logger.warn({ err: error, project }, 'building an index failed'),
        entries,
        project,
        directory: join(projectsDir, project),
        projectFile: formatProjectFile(file),
        disk,
        cipher,
        clock,
        cache,
        keptMemory,
        sealLimits: limitsAfter(SEAL_LIMITS, unknownSealers),
        quota,
      }),
    storedBytes: (project, entries) => storedBytes(disk, join(projectsDir, project), entries),
    moveSource: (project, instances) => {
      const folders = { directory: join(projectsDir, project), keptIn: join(dataDir, MOVED_FOLDER) };
      const place = { ...folders, tmp, disk, forget: () => forget(project) };
      return new FilesMoveSource({ project, place, instances });
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Logs events of the log, and measures its syncs. */
function watchLog(logger: Logger) {
  let syncSeconds = 0;
  const observer: LogObserver = {
    onFrame: (_commits, _bytes, seconds) => {
      syncSeconds += seconds;
    },
    onCut: (err) => logger.error({ err }, 'a write to the log failed: continuing in another segment'),
    onStopped: (err) => logger.error({ err }, 'the log cannot be written: refusing writes until it can'),
    onResumed: () => logger.info('the log can be written again'),
    onLost: (err) => {
      // The other process writes to it, so this one must not.
      logger.fatal({ err }, 'another process holds the data folder: exiting');
      setImmediate(() => process.exit(1));
    },
  };
  const onStuck = (failed: readonly FailedFolder[]) => {
    const [first] = failed.filter(({ project }) => project !== undefined);
    if (first !== undefined)
      logger.error(
        { err: first.cause, projects: failed.flatMap(({ project = [] }) => project) },
        `the folder of project ${first.project} failed, so its commits stay in log/stuck`,
      );
    const orphans = failed.flatMap(({ handle, project }) => (project === undefined ? [handle] : []));
    if (orphans.length > 0)
      logger.warn(
        { handles: orphans },
        'the log has commits of a project without a folder, which was removed or moved out of the storage: they stay in log/stuck until the folder returns or the project is restored',
      );
  };
  const onFreeingFailed = (err: unknown) => logger.error({ err }, 'the log could not be freed');
  return { watch: { observer, onStuck, onFreeingFailed }, syncSeconds: () => syncSeconds };
}

/**
 * Estimated memory of an open project from the sizes of its files. @param entries names in its folder, if
 * known.
 */
async function storedBytes(disk: Disk, directory: string, entries?: readonly string[]): Promise<number> {
  const names = [CATALOG_FILE, INDEX_FILE].filter((name) => entries?.includes(name) ?? true);
  const sizes = await Promise.all(names.map((name) => disk.size(join(directory, name))));
  return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
}

function folderEngine(engine: FilesEngine, forget: FolderEngine['forget']): FolderEngine {
  return {
    create: (...project) => engine.create(...project),
    forget,
    newest: (handle) => engine.newest(handle),
  };
}

interface Counted {
  readonly engine: FilesEngine;
  readonly lost: LostProjects;
  readonly keptMemory: KeptMemory;
  readonly backlog: Backlog;
  readonly shipping: ArchiveThread | undefined;
  readonly syncSeconds: () => number;
}

function countsOf({ engine, lost, keptMemory, backlog, shipping, syncSeconds }: Counted) {
  return {
    ...(shipping?.counts ?? NO_ARCHIVE),
    backlogBytes: () => backlog.bytes,
    lostProjects: () => lost.count,
    snapshotBytes: () => keptMemory.bytes,
    snapshotsDropped: () => keptMemory.dropped,
    logSegmentsLive: () => engine.stats.segmentsLive,
    logSegmentsFree: () => engine.stats.segmentsFree,
    logUncoveredBytes: () => engine.stats.uncoveredBytes,
    logFrames: () => engine.stats.frames,
    logCommits: () => engine.stats.commits,
    logSyncSeconds: syncSeconds,
    logCarries: () => engine.stats.carries,
    logCuts: () => engine.stats.cuts,
    logStuckHandles: () => engine.stats.stuckHandles,
    logSuspects: () => engine.stats.suspectFrames,
    logHoles: () => engine.stats.holes,
    logWritesStopped: () => Number(engine.stats.writesStopped),
  } satisfies Partial<Record<StorageCount, () => number>>;
}

/** Whether a small file can be created, synced and removed in the data folder. */
async function canWrite(disk: Disk, directory: string): Promise<boolean> {
  const probe = join(directory, `probe-${randomBytes(6).toString('hex')}`);
  try {
    await disk.createFile(probe, Buffer.from('probe'));
    return true;
  } catch {
    return false;
  } finally {
    // On a full disk the file may exist without its content, and readiness is checked every few seconds.
    await disk.remove(probe).catch(() => false);
  }
}
