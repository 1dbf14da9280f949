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

/** Small limits, so that a short history fills segments and triggers checkpoints. */
export interface EngineLimits {
  readonly log: LogLimits;
  readonly checkpointBytes: number;
}

export const SMALL_LIMITS: EngineLimits = {
  log: { segmentBytes: 65_536, segmentsMin: 4, segmentsMax: 8, frameBytes: 16_384, chunkBytes: 4_096 },
  checkpointBytes: 16_384,
};

/** The storage id of a test's data folder. */
export const STORAGE_ID = Buffer.alloc(16, 7);
const storageIds = new WeakMap<Disk, Buffer>();
const SMALL_BACKLOG_BYTES_MAX = 8_192;

export interface TestEngineOptions {
  /** The folder of the log; `/` by default. */
  readonly dataDir?: string;
  /** `/projects` by default. */
  readonly projectsDir?: string;
  readonly clock?: Clock;
  readonly limits?: EngineLimits;
  readonly backlogBytesMax?: number;
}

/** Turns a disk into that of another storage. */
export function setStorageId(disk: Disk, id: Buffer): void {
  storageIds.set(disk, id);
}

const storageIdOf = (disk: Disk) => storageIds.get(disk) ?? STORAGE_ID;

interface OpenEngine extends AsyncDisposable {
  readonly engine: FilesEngine;
}

const engines = new WeakMap<Disk, Promise<OpenEngine>>();
/** The ends of former engines. Two logs on one disk would write over each other. */
const ends = new WeakMap<Disk, Promise<void>>();

/** The engine of a process. Each disk has one. */
export async function engineOn(disk: Disk, options: TestEngineOptions = {}): Promise<FilesEngine> {
  let open = engines.get(disk);
  if (open === undefined) {
    open = (ends.get(disk) ?? Promise.resolve()).then(() => openEngine(disk, options));
    engines.set(disk, open);
    open.catch(() => engines.delete(disk));
  }
  return (await open).engine;
}

/** Closes the engine of a disk. The next call for an engine opens another one. */
export async function closeEngine(disk: Disk): Promise<void> {
  const open = engines.get(disk);
  if (open === undefined) return ends.get(disk);
  engines.delete(disk);
  const end = open.then((engine) => engine[Symbol.asyncDispose]());
  ends.set(
    disk,
    end.catch(() => undefined),
  );
  await end;
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
    disk,
    dataDir,
    projectsDir,
    storageId: storageIdOf(disk),
    mustExist: false,
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

/** The log of a disk as commands read it, while no engine has it open. */
export async function viewLog(disk: Disk, dataDir = '/'): Promise<ViewedLog> {
  const directory = dataDir === '/' ? '/log' : `${dataDir}/log`;
  // Callers may still read through the view.
  const stack = new AsyncDisposableStack();
  const view = await readLog({
    disk: logDiskOf(disk, dataDir, stack),
    directory,
    storageId: storageIdOf(disk),
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

/** Opens a store for a test of something else. */
export async function openTestStore(
  project: string,
  directory: string,
  disk: Disk,
  { cipher, file }: { readonly cipher: ProjectCipher; readonly file: ProjectFile },
  clock: Clock,
): Promise<FileStore> {
  const engine = await engineOn(disk, { clock });
  return engine.openStore({
    project,
    directory,
    disk,
    cipher,
    clock,
    projectFile: formatProjectFile(file),
    cache: createSealedCache(0),
    onIntegrityError: () => undefined,
    onFailure: () => undefined,
    positionFloor: () => 0,
    onRotationDue: () => undefined,
    sealLimits: SEAL_LIMITS,
  });
}
