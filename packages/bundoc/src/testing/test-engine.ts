import { defined } from '@bundoc/shared/contract/defined';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import type { Disk } from '../engine/files/disk/disk.ts';
import { Backlog } from '../engine/files/documents/backlog.ts';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import { FilesEngine } from '../engine/files/files-engine.ts';
import type { LogLimits } from '../engine/files/log/log-api.ts';
import { readLog } from '../engine/files/log/log-view.ts';
import { NodeLogDisk } from '../engine/files/log/node-log-disk.ts';
import type { LogDisk } from '../engine/files/log/ports.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { ViewedLog } from '../engine/files/store/viewed-log.ts';
import { SEAL_LIMITS } from '../engine/port/seal-budget.ts';
import { formatProjectFile } from '../engine/projects/project-file.ts';

/** Small enough that a short history fills segments and begins checkpoints by itself. */
export interface EngineLimits {
  readonly log: LogLimits;
  readonly checkpointBytes: number;
}

export const SMALL_LIMITS: EngineLimits = {
  log: { segmentBytes: 65_536, segmentsMin: 4, segmentsMax: 8, frameBytes: 16_384, chunkBytes: 4_096 },
  checkpointBytes: 16_384,
};

/** Which storage a test's data folder is. */
export const STORAGE_ID = Buffer.alloc(16, 7);
const storageIds = new WeakMap<Disk, Buffer>();
const SMALL_BACKLOG_BYTES_MAX = 8_192;

export interface TestEngineOptions {
  /** Where the log lies; `/` by default. */
  readonly dataDir?: string;
  /** `/projects` by default. */
  readonly projectsDir?: string;
  readonly clock?: Clock;
  readonly limits?: EngineLimits;
  readonly backlogBytesMax?: number;
}

/** Makes a disk that of another storage. */
export function setStorageId(disk: Disk, id: Buffer): void {
  storageIds.set(disk, id);
}

const storageIdOf = (disk: Disk) => storageIds.get(disk) ?? STORAGE_ID;

interface OpenEngine extends AsyncDisposable {
  readonly engine: FilesEngine;
}

const engines = new WeakMap<Disk, Promise<OpenEngine>>();

/** The engine of a process, which has a disk to itself: one for each disk. */
export async function engineOn(disk: Disk, options: TestEngineOptions = {}): Promise<FilesEngine> {
  let open = engines.get(disk);
  if (open === undefined) {
    open = openEngine(disk, options);
    engines.set(disk, open);
    open.catch(() => engines.delete(disk));
  }
  return (await open).engine;
}

/** Ends the engine of a disk in order. The next who asks opens another. */
export async function closeEngine(disk: Disk): Promise<void> {
  const open = await engines.get(disk);
  engines.delete(disk);
  await open?.[Symbol.asyncDispose]();
}

async function openEngine(
  disk: Disk,
  {
    dataDir = '/',
    projectsDir = '/projects',
    clock,
    limits = SMALL_LIMITS,
    backlogBytesMax,
  }: TestEngineOptions,
): Promise<OpenEngine> {
  await using stack = new AsyncDisposableStack();
  const options = {
    ...{ disk, dataDir, projectsDir, storageId: storageIdOf(disk), mustExist: false },
    logDisk: logDiskOf(disk, dataDir, stack),
    logLimits: limits.log,
    checkpointBytes: limits.checkpointBytes,
    backlog: new Backlog(backlogBytesMax ?? SMALL_BACKLOG_BYTES_MAX),
    ...defined({ clock }),
  };
  const engine = stack.use(await FilesEngine.open(options));
  const running = stack.move();
  return { engine, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** What commands see of the log of a disk, which no engine has open. */
export async function viewLog(disk: Disk, dataDir = '/'): Promise<ViewedLog> {
  const directory = dataDir === '/' ? '/log' : `${dataDir}/log`;
  // Holders of the view still read.
  const stack = new AsyncDisposableStack();
  const view = await readLog({
    ...{ disk: logDiskOf(disk, dataDir, stack), directory, storageId: storageIdOf(disk) },
    segmentBytes: SMALL_LIMITS.log.segmentBytes,
    everyFrame: true,
  });
  return new ViewedLog(storageIdOf(disk), view);
}

function logDiskOf(disk: Disk, dataDir: string, stack: AsyncDisposableStack): LogDisk {
  if (isLogDisk(disk)) return disk;
  return stack.use(new NodeLogDisk(disk, stack.use(DataFolder.open(dataDir))));
}

function isLogDisk(disk: Disk): disk is Disk & LogDisk {
  return 'openLogFile' in disk;
}

/** Opens a store for a test that looks at other things. */
export async function openTestStore(
  project: string,
  directory: string,
  disk: Disk,
  { cipher, file }: { readonly cipher: ProjectCipher; readonly file: ProjectFile },
  clock: Clock,
): Promise<FileStore> {
  const engine = await engineOn(disk, { clock });
  return engine.openStore({
    ...{ project, directory, disk, cipher, clock, projectFile: formatProjectFile(file) },
    cache: createSealedCache(0),
    onIntegrityError: () => undefined,
    onFailure: () => undefined,
    positionFloor: () => 0,
    onRotationDue: () => undefined,
    sealLimits: SEAL_LIMITS,
  });
}
