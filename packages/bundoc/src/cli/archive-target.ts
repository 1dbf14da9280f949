import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError } from '@bundoc/shared/cli/errors';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { codeOf } from '@bundoc/shared/files/data-folder';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';
import { LOCK_FILES, lockDataFolder } from '../engine/files/data-lock.ts';
import { TMP_FOLDER } from '../engine/files/disk/disk.ts';
import { LOG_FOLDER } from '../engine/files/log/log-api.ts';
import { parseStorageFile, STORAGE_FILE } from '../engine/identity/storage-file.ts';

/** Marks a folder that a restore has begun and not completed. */
const MARKER_FILE = 'restoring.json';
const markerSchema = z.strictObject({
  format: z.literal(1),
  storage: storageIdSchema,
  moment: z.iso.datetime(),
});
/** What an interrupted restore may leave. */
const OWN_ENTRIES: ReadonlySet<string> = new Set([
  MARKER_FILE,
  STORAGE_FILE,
  LOG_FOLDER,
  PROJECTS_FOLDER,
  TMP_FOLDER,
  ...LOCK_FILES,
]);
/** An empty file system has it. */
const LOST_FOUND = 'lost+found';

/**
 * Runs `fill` with an empty folder, which a marker keeps apart from a data folder until it is complete. A
 * folder that an interrupted restore of the storage has left is emptied before.
 *
 * @param storage a UUID.
 * @param moment an ISO time.
 * @throws CommandError for a folder with anything else; DataFolderInUse; FolderNotMade; the system's errors.
 */
export async function withTarget<T>(
  to: string,
  { storage, moment }: { readonly storage: string; readonly moment: string },
  fill: () => Promise<T>,
): Promise<T> {
  makeFolder(to);
  const entries = readdirSync(to).filter((name) => name !== LOST_FOUND);
  if (entries.length > 0) requireInterrupted(to, entries, storage);
  const marker = join(to, MARKER_FILE);
  await writeDurably(marker, JSON.stringify({ format: 1, storage, moment }));
  await syncFolder(to);
  using _lock = lockDataFolder(to);
  for (const name of entries)
    if (name !== MARKER_FILE && !LOCK_FILES.includes(name))
      rmSync(join(to, name), { recursive: true, force: true });
  const result = await fill();
  rmSync(marker);
  await syncFolder(to);
  return result;
}

/** @throws CommandError unless an interrupted restore of this storage has left everything in the folder. */
function requireInterrupted(to: string, entries: readonly string[], storage: string): void {
  const refusal = (why: string) =>
    new CommandError(`${to} ${why}: name a folder that is empty or does not exist`);
  const text = entries.includes(MARKER_FILE) ? readFileSync(join(to, MARKER_FILE), 'utf8') : undefined;
  const marker = markerSchema.safeParse(parseJson(text ?? '')).data;
  const foreign = entries.find((name) => !OWN_ENTRIES.has(name));
  if (marker === undefined || foreign !== undefined) throw refusal('is not empty');
  if (marker.storage !== storage)
    throw refusal(`has an interrupted restore of another storage, ${marker.storage}`);
  if (isUsed(to, entries)) throw refusal('is restored, and Bundoc has started on it');
}

/** Whether Bundoc has started on the folder. */
function isUsed(to: string, entries: readonly string[]): boolean {
  if (!entries.includes(STORAGE_FILE)) return false;
  const path = join(to, STORAGE_FILE);
  try {
    const { generation, candidates } = parseStorageFile(path, readFileSync(path, 'utf8'));
    return generation !== undefined || candidates.length > 0;
  } catch {
    // Its write was interrupted.
    return false;
  }
}

async function writeDurably(path: string, content: string): Promise<void> {
  await using file = await open(path, 'w', 0o600);
  await file.writeFile(content);
  await file.sync();
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, 'r');
  await folder.sync();
}

/** A fault of the disk as a refusal that names the path; undefined for anything else. */
export function diskRefusal(to: string, error: unknown): CommandError | undefined {
  const code = codeOf(error);
  const { path = to } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new CommandError(
      `the disk of ${to} is full (${code}): free space or name a folder on another disk, then run this again`,
      { cause: error },
    );
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'EIO' || code === 'ENOTDIR')
    return new CommandError(`cannot write to ${path} (${code}): make it writable, then run this again`, {
      cause: error,
    });
  return undefined;
}
