import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type BackupEnd, type BackupFacts, openBackup } from '../../../operations/read-backup.ts';
import { formatProjectFile } from '../../project-file.ts';
import { SEAL_LIMITS } from '../../seal-budget.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { DOCS_FOLDER, listDocumentFiles } from '../documents/document-files.ts';
import { writeProjectFile } from '../projects/project-folder.ts';
import { SealedFolder } from '../projects/sealed-folder.ts';

/**
 * A folder with this file and without `project.json` is what a restore that was cut short has left: nobody
 * else's.
 */
export const RESTORING_FILE = 'restoring';

/** There is a project, or something else, where one was to be restored. Nothing was changed. */
export class ProjectExists extends Error {
  override readonly name = 'ProjectExists';
}

/**
 * How many commits a restored project skips: anyone who follows it from a place behind the backup must not take
 * what comes next for what they have seen there.
 */
export const SKIPPED_SEQS = 2 ** 32;

/** What a project is restored of. */
export interface RestoreSource {
  readonly facts: BackupFacts;
  /** Reads the backup from its beginning; it was checked before. */
  readonly open: () => AsyncIterable<Uint8Array>;
  readonly cipher: ProjectCipher;
  readonly onProgress?: (entries: number) => void;
}

export interface RestoreOptions extends RestoreSource {
  readonly disk: Disk;
  /** `<data>/projects`; exists. */
  readonly projectsDirectory: string;
  /** For what is being written, on the same file system; exists. */
  readonly tmp: string;
  /** The log is to know that a project has come under this handle. */
  readonly arrived: (handle: string) => Promise<void>;
}

/**
 * Makes a project of a backup. `project.json` comes last, so a restore that a crash cut short leaves no
 * project, and can be begun again. The project takes no place of its former feed for its own: anyone who
 * followed it begins again. Its key is rotated with its next writes, since nobody knows how often it has
 * sealed after the backup.
 *
 * @throws ProjectExists; BackupDamaged, AppError of the disk: then there is no project.
 */
export async function restoreProject(options: RestoreOptions): Promise<BackupEnd> {
  const { facts, cipher, disk, projectsDirectory, tmp, arrived, onProgress = () => undefined } = options;
  const { project } = facts.head;
  const directory = join(projectsDirectory, project);
  await requireFree(disk, projectsDirectory, project);
  await makeDirectoryDurably(disk, directory);
  await replaceFile(disk, tmp, join(directory, RESTORING_FILE), Buffer.from(facts.head.id.toString('hex')));
  for (const path of (await listDocumentFiles(disk, directory)) ?? [])
    await disk.remove(join(directory, path));
  await disk.makeDirectory(join(directory, DOCS_FOLDER));
  await disk.syncDirectory(directory);

  const folder = new SealedFolder({ disk, directory, tmp, project });
  let entries = 0;
  const end = await openBackup(options.open(), cipher, async (changes) => {
    await folder.put(changes);
    entries += changes.length;
    onProgress(entries);
  });
  const lastSeq = end.lastSeq + SKIPPED_SEQS;
  const seals = [{ version: cipher.version, count: SEAL_LIMITS.rotateAt }];
  const rest = { lastSeq, purgedSeq: lastSeq, seals, usedKeys: [] };
  const { handle } = await folder.finish(cipher, rest, formatProjectFile(facts.file));
  await arrived(handle);
  await writeProjectFile(disk, tmp, directory, facts.file);
  await disk.remove(join(directory, RESTORING_FILE));
  await disk.syncDirectory(directory);
  return end;
}

/**
 * That a project can be made there of a backup. Marks that say otherwise are taken away before, by what
 * BunKMS says.
 *
 * @throws ProjectExists; AppError of the disk.
 */
async function requireFree(disk: Disk, projectsDirectory: string, project: string): Promise<void> {
  const directory = join(projectsDirectory, project);
  const names = await disk.list(directory);
  if (names === undefined) return;
  const isCutShort = names.includes(RESTORING_FILE) && !names.includes('project.json');
  if (!isCutShort && names.length > 0) throw new ProjectExists(`there is a folder of ${project} already`);
}

/**
 * Why a backup cannot be opened for want of its key, and what to do; undefined for any other error.
 *
 * @param storage where the project is to be restored, if it is.
 */
export function whyNoKey(error: unknown, project: string, storage?: string): string | undefined {
  if (!(error instanceof AppError)) return undefined;
  switch (error.code) {
    case 'project_destroyed':
      return 'its key was destroyed for ever: nobody can read what is in the backup';
    case 'KEY_NOT_FOUND':
      return 'BunKMS does not know its key: without it nobody can read what is in the backup';
    case 'project_elsewhere':
      return `storage ${error.storage} holds its key: if the project is to be restored here, an administrator first lets this storage take the key over (bunkms key take-over ${dekNameOf(project)} --storage ${storage})`;
    case 'key_unheld':
      return `no storage holds its key: an administrator first lets this storage take it over (bunkms key take-over ${dekNameOf(project)} --storage ${storage})`;
    case 'key_mismatch':
      return 'BunKMS has another key under its name than the backup was made with';
    default:
      return undefined;
  }
}
