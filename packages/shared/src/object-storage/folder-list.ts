import type { Stats } from 'node:fs';
import { lstat, opendir } from 'node:fs/promises';
import { type DataFolder, FOLDER_FLAGS, getName } from '../files/data-folder.ts';
import { absentAs, openEntry } from './folder-entries.ts';
import { isKey, type StoredObject } from './port.ts';

export interface FolderListOptions {
  /** As of `ObjectStorage.list`. */
  readonly prefix: string;
  readonly after: string;
  /** {@link PAGE_NAMES} by default; tests set less. */
  readonly pageNames?: number | undefined;
}

/** Names of one folder that a list holds, in each level of folders. */
const PAGE_NAMES = 20_000;
/** Objects whose sizes a list asks for at a time. */
const SIZES_AT_ONCE = 32;

/**
 * The files below a folder as `ObjectStorage.list` gives them. Entries that are neither files nor folders are
 * left out.
 *
 * @throws UnsafeEntry; the system's error otherwise.
 */
export function listFolder(folder: DataFolder, options: FolderListOptions): AsyncGenerator<StoredObject> {
  const { prefix } = options;
  return listBelow(folder, prefix.slice(0, prefix.lastIndexOf('/') + 1), options);
}

/** @param begin the common beginning of the keys: empty, or with a slash at its end. */
async function* listBelow(
  folder: DataFolder,
  begin: string,
  options: FolderListOptions,
): AsyncGenerator<StoredObject> {
  const below = begin.slice(0, -1);
  const handle = await absentAs(undefined, openEntry(folder, below, FOLDER_FLAGS));
  if (handle === undefined) return;
  try {
    const entries = folder.entriesOf(handle.fd, below);
    for await (const page of pagesOf(entries, begin, options))
      for (let at = 0; at < page.length; at += SIZES_AT_ONCE) {
        const some = page.slice(at, at + SIZES_AT_ONCE);
        const found = await Promise.all(some.map((key) => statsOf(entries, getName(key))));
        for (const [index, key] of some.entries()) {
          const stats = found[index];
          if (key.endsWith('/')) yield* listBelow(folder, key, options);
          else if (stats?.isFile() === true) yield { key, bytes: stats.size, modifiedAt: stats.mtimeMs };
        }
      }
  } finally {
    await handle.close();
  }
}

/**
 * Keys of a folder, and its folders with a slash at the end, which sorts them as their keys. A folder has no
 * order of its own, so it is read again for each page.
 */
async function* pagesOf(
  entries: string,
  begin: string,
  { prefix, after, pageNames = PAGE_NAMES }: FolderListOptions,
): AsyncGenerator<readonly string[]> {
  for (let last = ''; ; ) {
    let page: string[] = [];
    /** The last key of a page that was cut: all before it are in the page. */
    let end: string | undefined;
    for await (const entry of await opendir(entries, { bufferSize: 1_024 })) {
      if (!isKey(begin + entry.name)) continue;
      const isFolder = entry.isDirectory();
      const key = `${begin}${entry.name}${isFolder ? '/' : ''}`;
      const isWanted = key.startsWith(prefix) || (isFolder && prefix.startsWith(key));
      const isAfter = key > after || (isFolder && after.startsWith(key));
      const isInPage = key > last && (end === undefined || key < end);
      if (!isInPage || !isWanted || !isAfter) continue;
      page.push(key);
      if (page.length < 2 * pageNames) continue;
      page = page.sort().slice(0, pageNames);
      end = page.at(-1);
    }
    if (page.length > 0) yield page.sort();
    if (end === undefined) return;
    last = end;
  }
}

/** @param name empty for a folder, whose size nobody needs. */
async function statsOf(entries: string, name: string): Promise<Stats | undefined> {
  return name === '' ? undefined : await absentAs(undefined, lstat(`${entries}/${name}`));
}
