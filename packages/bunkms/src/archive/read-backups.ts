import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { DamagedFile } from '../recovery/errors.ts';
import {
  type BackupName,
  backupsPrefix,
  hashOf,
  installationsPrefix,
  LAST,
  parseBackupName,
  parseInstallation,
  parsePartName,
} from './names.ts';

/** More than any object of an archive has. */
const OBJECT_BYTES_MAX = 67_108_864;

/** A backup of which every part is stored. */
export interface ArchivedBackup extends BackupName {
  readonly bytes: number;
  /** The keys of its parts, in order. */
  readonly parts: readonly string[];
}

/** The names of the folders right below a prefix, in order. Asks for one list each, whatever is in them. */
export async function* foldersBelow(objects: ObjectStorage, prefix: string): AsyncGenerator<string> {
  for (let after = ''; ; ) {
    const key = await firstKey(objects, prefix, after);
    if (key === undefined) return;
    const [name = '', rest] = key.slice(prefix.length).split('/', 2);
    if (rest !== undefined) yield name;
    after = rest === undefined ? key : `${prefix}${name}/${LAST}`;
  }
}

async function firstKey(objects: ObjectStorage, prefix: string, after: string): Promise<string | undefined> {
  for await (const { key } of objects.list(prefix, after)) return key;
  return undefined;
}

/** The installations that the archive has something of. @throws ObjectStorageError. */
export async function installationsIn(objects: ObjectStorage): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const name of foldersBelow(objects, installationsPrefix))
    if (parseInstallation(name) !== undefined) found.push(name);
  return found;
}

/**
 * The complete backups of an installation by their time, the earliest first.
 *
 * @param since the stamp of a time; all when absent.
 * @throws ObjectStorageError.
 */
export async function* backupsIn(
  objects: ObjectStorage,
  installation: string,
  since = '',
): AsyncGenerator<ArchivedBackup> {
  const prefix = backupsPrefix(installation);
  let folder = '';
  let parts = new Map<number, string>();
  let [of, bytes] = [0, 0];
  const complete = (): ArchivedBackup[] => {
    const name = parseBackupName(folder);
    if (name === undefined || of === 0 || parts.size !== of) return [];
    return [{ ...name, bytes, parts: [...parts.values()] }];
  };
  for await (const { key, bytes: size } of objects.list(prefix, prefix + since)) {
    const [name = '', rest = ''] = key.slice(prefix.length).split('/', 2);
    const part = parsePartName(rest);
    if (part === undefined) continue;
    if (name !== folder) {
      yield* complete();
      [folder, parts, of, bytes] = [name, new Map(), part.of, 0];
    }
    if (part.of !== of || part.part !== parts.size + 1 || part.part > of) continue;
    parts.set(part.part, key);
    bytes += size;
  }
  yield* complete();
}

/** The file of a backup in pieces. @throws DamagedFile; ObjectStorageError. */
export async function* bytesOf(objects: ObjectStorage, { parts }: ArchivedBackup): AsyncGenerator<Buffer> {
  for (const key of parts)
    yield await readObject(objects, key, parsePartName(key.slice(key.lastIndexOf('/') + 1))?.hash);
}

/**
 * Reads an object.
 *
 * @param hash of its name.
 * @throws DamagedFile when the object is gone, or its bytes have another hash; ObjectStorageError.
 */
export async function readObject(
  objects: ObjectStorage,
  key: string,
  hash: string | undefined,
): Promise<Buffer> {
  const body = await objects.get(key, { maxBytes: OBJECT_BYTES_MAX });
  if (body === undefined)
    throw new DamagedFile(`${objects.name}: the object ${key} was listed, and is missing`);
  if (hashOf(body) !== hash)
    throw new DamagedFile(`${objects.name}: the object ${key} is damaged: its name has another hash`);
  return body;
}
