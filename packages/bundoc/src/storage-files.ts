import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { DataFolder } from '@bundoc/shared/data-folder';
import type { BundocConfig } from './config.ts';
import { identifyFolder } from './identity/identity-in-folder.ts';
import { MOVED_FOLDER } from './move/to-folder.ts';
import { lockDataFolder } from './project/data-lock.ts';
import { ExpiryMarksInFolders } from './project/expiry-marks.ts';
import { ProjectFolders } from './project/project-folder.ts';
import { SET_ASIDE_FOLDER } from './project/set-aside.ts';
import { Backlog } from './storage/embedded/backlog.ts';
import type { EmbeddedLimits } from './storage/embedded/checkpoints.ts';
import { type Disk, makeDirectoryDurably } from './storage/embedded/disk.ts';
import { INDEX_FILE } from './storage/embedded/index-file.ts';
import { openNodeDisk } from './storage/embedded/node-disk.ts';
import { createEmbeddedStore, openEmbeddedStore } from './storage/embedded/recovery.ts';
import { limitsAfter, SEAL_LIMITS } from './storage/embedded/seal-budget.ts';
import { createSealedCache } from './storage/embedded/sealed-cache.ts';
import { CATALOG_FILE } from './storage/embedded/snapshot.ts';
import type { OpenCost, Storage, StoragePorts } from './storage-parts.ts';

const MIB = 1_048_576;
/** Measured over 1,000 open projects of one document. The journal keeps the segment open that it writes to. */
const OPEN_COST: OpenCost = { bytes: 131_072, descriptors: 1 };
/** Sealed documents of all projects that may wait for their files before writes wait. */
const BACKLOG_BYTES_MAX = 64 * MIB;
export const EMBEDDED_LIMITS: EmbeddedLimits = {
  segmentBytes: 2 * MIB,
  checkpointBytes: 32 * MIB,
};

/** The part of the composition root that stores in files. @throws DataFolderInUse, StartRefused, and what the disk throws. */
export async function openFileStorage(
  config: BundocConfig,
  { clock, quota }: Omit<StoragePorts, 'logger'>,
  wrapDisk: (disk: Disk) => Disk = (disk) => disk,
): Promise<Storage> {
  await using stack = new AsyncDisposableStack();
  const dataDir = resolve(config.dataDir);
  DataFolder.make(dataDir)[Symbol.dispose]();
  stack.use(lockDataFolder(dataDir));
  const disk = wrapDisk(stack.use(openNodeDisk(dataDir)));
  const identity = await identifyFolder(disk, dataDir, clock);
  const projectsDir = join(dataDir, 'projects');
  await makeDirectoryDurably(disk, projectsDir);
  const backlog = new Backlog(BACKLOG_BYTES_MAX);
  const cache = createSealedCache(config.cacheBytes);
  const running = stack.move();
  return {
    place: dataDir,
    identity,
    othersWrite: false,
    counts: { backlogBytes: () => backlog.bytes },
    isReady: () => canWrite(disk, dataDir),
    projects: (keys, storage, onSetAside, settle) =>
      new ProjectFolders({
        disk,
        directory: projectsDir,
        keys,
        clock,
        storage,
        setAside: join(dataDir, SET_ASIDE_FOLDER),
        onSetAside,
        settle,
        onContentRemoved: (project) => cache.deleteAll(project),
        createStore: (project, directory, cipher) =>
          createEmbeddedStore({ project, directory, disk, cipher }),
      }),
    expiry: new ExpiryMarksInFolders({ disk, directory: projectsDir, clock }),
    openStore: (project, cipher, watch, unknownSealers) =>
      openEmbeddedStore({
        ...watch,
        project,
        directory: join(projectsDir, project),
        disk,
        cipher,
        clock,
        cache,
        backlog,
        limits: EMBEDDED_LIMITS,
        sealLimits: limitsAfter(SEAL_LIMITS, unknownSealers),
        quota,
      }),
    openCost: OPEN_COST,
    storedBytes: async (project) => {
      const sizes = [CATALOG_FILE, INDEX_FILE].map((name) => disk.size(join(projectsDir, project, name)));
      return (await Promise.all(sizes)).reduce<number>((sum, size) => sum + (size ?? 0), 0);
    },
    folders: {
      placeOf: (project) => ({
        directory: join(projectsDir, project),
        keptIn: join(dataDir, MOVED_FOLDER),
        disk,
        forget: () => cache.deleteAll(project),
      }),
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Whether a small file can be made, synced and removed in the data folder. */
async function canWrite(disk: Disk, directory: string): Promise<boolean> {
  const probe = join(directory, `.probe-${randomBytes(6).toString('hex')}`);
  try {
    await disk.createFile(probe, Buffer.from('probe'));
    return true;
  } catch {
    return false;
  } finally {
    // On a full disk the file may have come to be without its content, and readiness is asked every few seconds.
    await disk.remove(probe).catch(() => false);
  }
}
