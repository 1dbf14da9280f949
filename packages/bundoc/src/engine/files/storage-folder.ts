import { join } from 'node:path';
import { defined } from '@bundoc/shared/contract/defined';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import type { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { StorageIdentity } from '../identity/storage-file.ts';
import { keptSegment } from './archive/position.ts';
import type { HeldLock } from './data-lock.ts';
import { type Disk, makeDirectoryDurably, TMP_FOLDER } from './disk/disk.ts';
import { Backlog } from './documents/backlog.ts';
import { FilesEngine, type FilesEngineOptions } from './files-engine.ts';
import { identifyFolder } from './identity-in-folder.ts';
import { LOG_FOLDER, logLimits } from './log/log-api.ts';
import { readLog } from './log/log-view.ts';
import { NodeLogDisk } from './log/node-log-disk.ts';
import type { LogObserver } from './log/ports.ts';
import { LostInFolder } from './lost-in-folder.ts';
import { ViewedLog } from './store/viewed-log.ts';

const MIB = 1_048_576;
/** Sealed bytes of all projects that may wait for their files before new writes wait. */
const BACKLOG_BYTES_MAX = 64 * MIB;
/**
 * Counted for each project in the backlog: files of many projects take longer, and the log must be freed
 * before it is full.
 */
const BACKLOG_PROJECT_BYTES = 4_096;
/**
 * An open project gets a checkpoint once it has this many uncovered bytes in the log. The value is large so
 * that checkpoints seldom disturb a burst of creates. It also bounds how much an opening after a crash reads.
 */
const CHECKPOINT_BYTES = 64 * MIB;

/** A data folder that this process has locked. */
export interface HeldFolder {
  /** An absolute path. */
  readonly dataDir: string;
  readonly folder: DataFolder;
  readonly disk: Disk;
  readonly lock: HeldLock;
  readonly clock?: Clock;
}

export interface EnginePorts {
  readonly logBytes: number;
  /** Whether the folder has an archive: the log keeps what it lacks. */
  readonly isArchived?: boolean;
  readonly observer?: LogObserver;
  readonly onStuck?: FilesEngineOptions['onStuck'];
  readonly onFreeingFailed?: (error: unknown) => void;
}

/** An open data folder with its engine. */
export interface OpenFolder extends AsyncDisposable {
  readonly identity: StorageIdentity;
  readonly engine: FilesEngine;
  readonly backlog: Backlog;
  readonly projectsDir: string;
  readonly lost: LostInFolder;
}

/**
 * Opens the engine of a data folder, and initializes an empty folder.
 *
 * @throws StartRefused for a folder of another version; LogDamaged; AppError of the disk.
 */
export async function openFolder(
  { dataDir, folder, disk, lock, clock }: HeldFolder,
  { logBytes, isArchived, observer, onStuck, onFreeingFailed }: EnginePorts,
): Promise<OpenFolder> {
  const identity = await identifyFolder(disk, dataDir, clock);
  const projectsDir = join(dataDir, PROJECTS_FOLDER);
  const { id, log } = await identity.read();
  await makeDirectoryDurably(disk, projectsDir);
  await using stack = new AsyncDisposableStack();
  const logDisk = stack.use(new NodeLogDisk(disk, folder));
  const keepFrom = (await keptSegment(disk, dataDir)) ?? (isArchived === true ? 0 : undefined);
  const backlog = new Backlog(BACKLOG_BYTES_MAX, BACKLOG_PROJECT_BYTES);
  const engine = stack.use(
    await FilesEngine.open({
      disk,
      logDisk,
      dataDir,
      projectsDir,
      backlog,
      ...defined({ clock, observer, onStuck, onFreeingFailed, keepFrom }),
      storageId: idBytes(id),
      mustExist: log === true,
      beforeSegment: async () => lock.requireHeld(),
      logLimits: logLimits(logBytes),
      checkpointBytes: CHECKPOINT_BYTES,
    }),
  );
  const lost = await LostInFolder.open({ disk, dataDir, projectsDir, tmp: join(dataDir, TMP_FOLDER) });
  // From here on, a missing log was lost.
  if (log !== true) await identity.change((file) => ({ ...file, log: true }));
  const running = stack.move();
  return {
    identity,
    engine,
    backlog,
    projectsDir,
    lost,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/**
 * Reads the log of a data folder, and changes nothing.
 *
 * @throws StartRefused for a folder of another version; LogDamaged; AppError of the disk.
 */
export async function viewFolder(
  { dataDir, folder, disk }: Omit<HeldFolder, 'lock'>,
  identity: StorageIdentity,
): Promise<ViewedLog> {
  const { id, log } = await identity.read();
  const storageId = idBytes(id);
  const directory = join(dataDir, LOG_FOLDER);
  const view = await readLog({
    disk: new NodeLogDisk(disk, folder),
    directory,
    storageId,
    mustExist: log === true,
    everyFrame: true,
  });
  return new ViewedLog(storageId, view);
}

function idBytes(id: string): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}
