import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import type { ArchiveReader } from '../engine/files/archive/lineage.ts';
import { type RestorePlan, restoreArchive } from '../engine/files/archive/restore.ts';
import { type Disk, TMP_FOLDER } from '../engine/files/disk/disk.ts';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import { identifyFolder } from '../engine/files/identity-in-folder.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { viewFolder } from '../engine/files/storage-folder.ts';
import { stopSignal } from './service-client.ts';

/** A moment in a temporary folder, sealed as it is in the archive. */
export interface TemporaryMoment {
  readonly disk: Disk;
  readonly projectsDir: string;
  readonly place: (project: string) => ProjectPlace;
  /** Projects that had just arrived, and are missing. */
  readonly unfinished: readonly string[];
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/**
 * Restores a moment into a folder for this user alone, below TMPDIR, which is removed at the end.
 *
 * @param only the only project that is restored; all when undefined.
 * @throws ArchiveDamaged; ObjectStorageError; the reason of {@link stopSignal}.
 */
export async function withTemporaryMoment<T>(
  reader: ArchiveReader,
  plan: RestorePlan,
  keys: ProjectPlace['keys'],
  action: (moment: TemporaryMoment) => Promise<T>,
  only?: string,
): Promise<T> {
  const signal = stopSignal();
  const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-archive-'));
  try {
    const onProgress = () => signal.throwIfAborted();
    const { unfinished } = await restoreArchive(reader, plan, dataDir, { only, onProgress });
    using folder = DataFolder.open(dataDir);
    await using disk = openNodeDisk(dataDir);
    const log = await viewFolder({ dataDir, folder, disk }, await identifyFolder(disk, dataDir));
    const [projectsDir, tmp] = [join(dataDir, PROJECTS_FOLDER), join(dataDir, TMP_FOLDER)];
    const place = (project: string) => ({
      project,
      directory: join(projectsDir, project),
      disk,
      tmp,
      keys,
      log,
    });
    return await action({ disk, projectsDir, place, unfinished, signal });
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}
