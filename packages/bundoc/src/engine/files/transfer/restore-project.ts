import { join } from 'node:path';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { type BackupEnd, type RestoreSource, takeAll } from '../../moves/transfer-port.ts';
import { ProjectExists } from '../../port/errors.ts';
import { positionAfterLoss } from '../../port/positions.ts';
import { SEAL_LIMITS } from '../../port/seal-budget.ts';
import { formatProjectFile } from '../../projects/project-file.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { DOCS_FOLDER, listDocumentFiles } from '../documents/document-files.ts';
import { writeProjectFile } from '../projects/file-projects.ts';
import { SealedFolder } from '../projects/sealed-folder.ts';

/** A folder with this file and without `project.json` is what an interrupted restore left. */
const RESTORING_FILE = 'restoring';

export interface RestoreOptions extends RestoreSource {
  readonly disk: Disk;
  readonly clock: Clock;
  /** `<data>/projects`; exists. */
  readonly projectsDirectory: string;
  /** An existing folder for unfinished files, on the same file system. */
  readonly tmp: string;
  /** Registers the project's new handle in the log. */
  readonly arrived: (handle: string) => Promise<void>;
  /** Ends handles of a former folder of the project, which is gone. */
  readonly endOrphans: () => Promise<void>;
}

/**
 * Restores a project from a backup. `project.json` comes last, so a crash leaves no project, and the restore
 * can be repeated. Cursors from before the backup are rejected; readers must restart. The key is rotated with
 * the next writes, because the number of its seals after the backup is unknown.
 *
 * @throws ProjectExists; BackupDamaged, AppError of the disk: then there is no project.
 */
export async function restoreProject(options: RestoreOptions): Promise<BackupEnd> {
  const {
    file,
    id,
    cipher,
    changes,
    disk,
    projectsDirectory,
    tmp,
    arrived,
    endOrphans,
    clock,
    onProgress = () => undefined,
  } = options;
  const { project } = file;
  const directory = join(projectsDirectory, project);
  await requireFree(disk, projectsDirectory, project);
  await makeDirectoryDurably(disk, directory);
  await replaceFile(disk, tmp, join(directory, RESTORING_FILE), Buffer.from(id.toString('hex')));
  for (const path of (await listDocumentFiles(disk, directory)) ?? [])
    await disk.remove(join(directory, path));
  await disk.makeDirectory(join(directory, DOCS_FOLDER));
  await disk.syncDirectory(directory);

  const folder = new SealedFolder({ disk, directory, tmp, project });
  let entries = 0;
  const end = await takeAll(changes(), async (some) => {
    await folder.put(some);
    entries += some.length;
    onProgress(entries);
  });
  const lastSeq = positionAfterLoss(end.lastSeq, clock.now());
  const seals = [{ version: cipher.version, count: SEAL_LIMITS.rotateAt }];
  const rest = { lastSeq, purgedSeq: lastSeq, seals, idempotencyRecords: [] };
  const handle = await folder.finish(cipher, rest, formatProjectFile(file));
  await arrived(handle);
  await writeProjectFile(disk, tmp, directory, file);
  await disk.remove(join(directory, RESTORING_FILE));
  await disk.syncDirectory(directory);
  await endOrphans();
  return end;
}

/**
 * Requires that a project can be restored there. Marks were already judged and removed.
 *
 * @throws ProjectExists; AppError of the disk.
 */
async function requireFree(disk: Disk, projectsDirectory: string, project: string): Promise<void> {
  const directory = join(projectsDirectory, project);
  const names = await disk.list(directory);
  if (names === undefined) return;
  const isCutShort = names.includes(RESTORING_FILE) && !names.includes('project.json');
  if (!isCutShort && names.length > 0)
    throw new ProjectExists(
      `there is a folder of ${project} already: to go back to this backup, move it out of ${projectsDirectory}`,
    );
}
