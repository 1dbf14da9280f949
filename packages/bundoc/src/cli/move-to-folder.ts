import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { KeyCache } from '../crypto/key-cache.ts';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import type { Disk } from '../engine/files/disk/disk.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import { MOVED_FOLDER } from '../engine/files/projects/moved-folder.ts';
import { FilesMoveTarget } from '../engine/files/transfer/move-target.ts';
import { startStorage } from '../engine/identity/started-storage.ts';
import type { StorageIdentity } from '../engine/identity/storage-file.ts';
import { settleMove } from '../engine/moves/judge-move-mark.ts';
import { type OnSetAside, SET_ASIDE_FOLDER } from '../engine/moves/set-aside.ts';
import { positionAt } from '../engine/port/positions.ts';
import type { Database } from '../engine/postgres/database/database.ts';
import { PostgresProjects } from '../engine/postgres/projects/postgres-projects.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import { skipPositions } from '../engine/postgres/rows/skip-positions.ts';
import { PostgresMoveSource } from '../engine/postgres/transfer/move-source.ts';
import type { StorageCalls } from '../kms/port.ts';
import { StorageKeys } from '../kms/storage-keys.ts';
import { finishMove, type MoveLimits, type MoveWatch, moveProject } from '../operations/move-project.ts';

/** The keys are fetched at the start and expire soon after. */
const KEYS_TTL_MS = 60_000;

export interface MoveToFolderOptions {
  readonly project: string;
  readonly database: Database;
  /** A data folder that this process holds exclusively. */
  readonly dataDir: string;
  readonly open: {
    readonly identity: StorageIdentity;
    readonly projectsDir: string;
    readonly engine: Pick<FilesEngine, 'arrived'>;
  };
  /** The folder for unfinished files. */
  readonly tmp: string;
  readonly disk: Disk;
  readonly calls: StorageCalls;
  readonly onSetAside: OnSetAside;
}

/**
 * Moves a project from PostgreSQL into a data folder. The nodes on PostgreSQL serve it until the cut-over. It
 * also finishes a move that is already past the cut-over.
 *
 * @returns the project's folder.
 * @throws MoveFailed; AppError `project_not_found`, and those of the project, of both storages and of BunKMS.
 */
export async function moveToFolder(
  { project, database, dataDir, open, tmp, disk, calls, onSetAside }: MoveToFolderOptions,
  watch: MoveWatch,
  limits?: MoveLimits,
): Promise<string> {
  const identity = await identifyDatabase(database, systemClock);
  const from = await startStorage(identity, calls);
  // No node may have started since.
  await skipPositions(database, positionAt(from.takenOverMs));
  const to = await startStorage(open.identity, calls);
  const keys = new StorageKeys(calls, { acting: from.acting, refused: from.advance });
  const directory = join(open.projectsDir, project);
  const source = new PostgresMoveSource({ project, database, keys });
  const keptIn = join(dataDir, MOVED_FOLDER);
  const setAside = join(dataDir, SET_ASIDE_FOLDER);
  const cipher = () => source.cipher;
  const arrived = (handle: string, keys: ProjectCipher) => open.engine.arrived(project, handle, keys);
  const places = { directory, tmp, keptIn, setAside };
  const target = new FilesMoveTarget({ project, ...places, onSetAside, disk, cipher, arrived });
  const rows = new PostgresProjects({
    database,
    clock: systemClock,
    storage: await identity.read(),
    keys: new KeyCache({ keys, clock: systemClock, ttlMs: KEYS_TTL_MS }),
    onSetAside,
    settle: (_project, move) => settleMove(from, project, move),
  });
  try {
    if ((await rows.open(project)) === undefined) throw new AppError('project_not_found');
    await moveProject({ project, source, target, from, to }, watch, limits);
  } catch (error) {
    if (!hasCode(error, 'project_elsewhere') || error.storage !== to.id) throw error;
    await finishMove({ project, source, target, to });
  }
  return directory;
}
