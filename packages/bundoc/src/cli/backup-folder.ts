import { createHash } from 'node:crypto';
import { closeSync, constants, createReadStream, openSync } from 'node:fs';
import { lstat, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError } from '@bundoc/shared/cli/errors';
import { backupFileOf, JOURNAL_FILE, MANIFEST_FILE } from '@bundoc/shared/contract/backup-folder';
import { clearPartOfEnd } from '@bundoc/shared/files/backup-end';
import { DataFolderInUse, LOCK_FILES, lockDataFolder } from '../engine/files/data-lock.ts';
import { BackupDamaged } from '../engine/port/errors.ts';
import { SMALL_FILE_BYTES_MAX } from '../engine/projects/project-file.ts';
import { type BackupSet, type ManifestEntry, readBackups } from '../operations/backup-manifest.ts';
import { type BackupFacts, checkBackup } from '../operations/read-backup.ts';

/** What a run that was killed leaves beside the file that it was writing. */
const UNFINISHED = /^(?:[a-z0-9-]+\.backup|manifest\.ndjson)\.[0-9a-f]{12}\.tmp$/;
/** `lost+found` is in the root of each file system of ext4, so also in that of a volume. */
const OWN_FILES: ReadonlySet<string> = new Set([MANIFEST_FILE, JOURNAL_FILE, ...LOCK_FILES, 'lost+found']);

/**
 * Runs `action` with exclusive use of a folder of backups, which is created if necessary. Unfinished files of
 * a killed run are removed.
 *
 * @param action receives what the folder has.
 * @throws CommandError when another process uses the folder, or it has other files and no backups.
 */
export async function withBackupFolder<T>(
  folder: string,
  action: (backups: BackupSet | undefined) => Promise<T>,
): Promise<T> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const backups = await readBackups(folder);
  const names = await readdir(folder);
  const foreign = names.find((name) => !OWN_FILES.has(name) && !UNFINISHED.test(name));
  if (backups === undefined && foreign !== undefined)
    throw new CommandError(
      `${folder} has other files, such as ${foreign}: name an empty folder, or one that is to be created`,
    );
  using _lock = lockFolder(folder);
  for (const name of names) if (UNFINISHED.test(name)) await rm(join(folder, name), { force: true });
  // Again: another run may have ended before this one got the lock.
  return await action(await readBackups(folder));
}

function lockFolder(folder: string): Disposable {
  try {
    return lockDataFolder(folder);
  } catch (cause) {
    if (!(cause instanceof DataFolderInUse)) throw cause;
    throw new CommandError(`another process backs up to ${folder}: wait for its end`, { cause });
  }
}

/** Whether the file of an entry is there, with its size. Reads nothing of it. */
export async function isInPlace(folder: string, { project, bytes }: ManifestEntry): Promise<boolean> {
  const found = await lstat(join(folder, backupFileOf(project))).catch(() => undefined);
  return found?.isFile() === true && found.size === bytes;
}

/** The file of an entry: the facts of a good one, or what is wrong with it. */
export type CheckedFile =
  | { readonly facts: BackupFacts }
  | {
      readonly fault: 'missing' | 'no_file' | 'unreadable' | 'damaged' | 'changed';
      readonly problem: string;
    };

/**
 * Checks without a key that the file of an entry is a complete, unaltered backup of its project, and the one
 * that the manifest names.
 *
 * @param onProgress called with the number of bytes read.
 */
export async function checkEntry(
  folder: string,
  { project, sha256, at }: ManifestEntry,
  onProgress: (bytes: number) => void = () => undefined,
): Promise<CheckedFile> {
  const path = join(folder, backupFileOf(project));
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined) return { fault: 'missing', problem: 'is missing' };
  if (!found.isFile()) return { fault: 'no_file', problem: 'is not a regular file' };
  const whole = createHash('sha256');
  const source = createReadStream(path);
  const hashed = (async function* () {
    for await (const piece of source as AsyncIterable<Uint8Array>) {
      whole.update(piece);
      yield piece;
    }
  })();
  let facts: BackupFacts;
  try {
    facts = await checkBackup(hashed, onProgress);
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    // A bad sector of one file says nothing of the others.
    if (syscall !== undefined) return { fault: 'unreadable', problem: `cannot be read (${code})` };
    if (!(error instanceof BackupDamaged)) throw error;
    return { fault: 'damaged', problem: `is no complete backup: ${error.message}` };
  } finally {
    source.destroy();
  }
  const of = facts.head.project;
  if (of !== project) return { fault: 'changed', problem: `is a backup of ${of}, not of ${project}` };
  if (whole.digest('hex') === sha256) return { facts };
  return { fault: 'changed', problem: `is another backup than that of ${at}, which the manifest names` };
}

/** The `project.json` in the backup of a project; undefined when there is no complete one. Checks no hash. */
export function endOf(folder: string, project: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(
      join(folder, backupFileOf(project)),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
    return clearPartOfEnd(file, SMALL_FILE_BYTES_MAX)?.toString();
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** The bytes of the file of a project, from its start. */
export function readBackup(folder: string, project: string): AsyncIterable<Uint8Array> {
  return createReadStream(join(folder, backupFileOf(project)));
}

/** Files of the folder that belong to no entry, in order. */
export async function surplusFiles(folder: string, { entries }: BackupSet): Promise<string[]> {
  const known = new Set([...OWN_FILES, ...entries.keys().map(backupFileOf)]);
  return (await readdir(folder)).filter((name) => !known.has(name)).sort();
}
