import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  type FileHandle,
  link as linkFile,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  unlink,
} from 'node:fs/promises';
import { resolve } from 'node:path';
import {
  codeOf,
  DataFolder,
  FOLDER_FLAGS,
  getName,
  parentOf,
  requireFile,
  UnsafeEntry,
} from '../files/data-folder.ts';
import { printable } from '../logs/printable.ts';
import type { Clock } from '../runtime/clock.ts';
import { absentAs, openEntry } from './folder-entries.ts';
import { listFolder } from './folder-list.ts';
import {
  assertGet,
  assertKey,
  assertPrefix,
  type GetOptions,
  type ObjectStorage,
  ObjectStorageError,
  type ObjectStorageFault,
  type StoredObject,
} from './port.ts';

export interface FolderStorageOptions {
  readonly path: string;
  readonly clock: Clock;
  /** Makes a hard link; a test replaces it by one that fails. */
  readonly link?: typeof linkFile;
  /** Names that a list holds of each folder; tests set fewer. */
  readonly pageNames?: number;
}

/** Temporary files begin with a character that keys do not have. */
const TEMPORARY = '~';
/** How old a temporary file is before it counts as left over by a process that was killed. */
const LEFT_OVER_MS = 86_400_000;
const NO_HARD_LINKS: ReadonlySet<string | undefined> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);
const DENIED: ReadonlySet<string | undefined> = new Set(['EACCES', 'EPERM', 'EROFS']);

/**
 * Objects as files below a folder, for a mounted file system. The folder must exist: an unmounted one must
 * not turn into an archive beside the data. It is opened for each operation, so a new mount is used at once.
 *
 * An object is written to a temporary file in the folder itself, synced, linked to its name, and the folders
 * of the name are synced. So it appears complete or not at all, and nothing is overwritten. A file system
 * without hard links gets a check and a rename instead, between which two writers of one key may overwrite
 * each other. What is neither a regular file nor a folder is not read, and no symbolic link is followed.
 *
 * There are no attempts beyond the first one. A file system that hangs occupies one thread of libuv for each
 * operation.
 */
export class FolderStorage implements ObjectStorage {
  readonly name: string;
  readonly #options: FolderStorageOptions;
  /** A folder whose path from the root is durable. */
  #durable: string | undefined;
  #isClosed = false;
  #isCleaned = false;

  constructor(options: FolderStorageOptions) {
    this.#options = options;
    this.name = printable(resolve(options.path));
  }

  async put(key: string, body: Uint8Array): Promise<void> {
    assertKey(key);
    await this.#use('put', key, async (folder) => {
      if (!this.#isCleaned) await this.#removeLeftOver(folder);
      this.#isCleaned = true;
      await using parent = await this.#openParent(folder, parentOf(key));
      const temporary = folder.entry(`${TEMPORARY}${randomBytes(8).toString('hex')}`);
      try {
        await writeDurably(temporary, body);
        const path = `${folder.entriesOf(parent.fd, parentOf(key))}/${getName(key)}`;
        if (!(await this.#publish(temporary, path))) await this.#requireSame(folder, key, body);
      } finally {
        await rm(temporary, { force: true });
      }
      await parent.sync();
    });
  }

  async get(key: string, options: GetOptions): Promise<Buffer | undefined> {
    assertGet(key, options);
    return await this.#use('get', key, (folder) => this.#read(folder, key, options));
  }

  async *list(prefix: string, after = ''): AsyncGenerator<StoredObject> {
    assertPrefix(prefix);
    try {
      using folder = this.#open();
      yield* listFolder(folder, { prefix, after, pageNames: this.#options.pageNames });
    } catch (error) {
      throw this.#faultOf('list', prefix, error);
    }
  }

  async delete(key: string): Promise<void> {
    assertKey(key);
    await this.#use('delete', key, async (folder) => {
      const parent = await absentAs(undefined, openEntry(folder, parentOf(key), FOLDER_FLAGS));
      if (parent === undefined) return;
      try {
        await absentAs(undefined, unlink(`${folder.entriesOf(parent.fd, parentOf(key))}/${getName(key)}`));
        await parent.sync();
      } finally {
        await parent.close();
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
  }

  #open(): DataFolder {
    if (this.#isClosed) throw new ObjectStorageError('unavailable', `${this.name} is closed`);
    try {
      return DataFolder.open(this.#options.path);
    } catch (error) {
      const code = codeOf(error);
      if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
      throw new ObjectStorageError(
        'missing',
        `${this.name} is no folder (${code}): mount it, or make it`,
        code,
      );
    }
  }

  async #use<T>(verb: string, key: string, use: (folder: DataFolder) => Promise<T>): Promise<T> {
    try {
      using folder = this.#open();
      return await use(folder);
    } catch (error) {
      throw this.#faultOf(verb, key, error);
    }
  }

  #faultOf(verb: string, key: string, error: unknown): ObjectStorageError {
    if (error instanceof ObjectStorageError) return error;
    const where = `${this.name}: ${verb} ${key}`;
    if (error instanceof UnsafeEntry) return new ObjectStorageError('wrong', `${where}: ${error.message}`);
    const code = codeOf(error);
    if (code === undefined) throw error;
    if (DENIED.has(code))
      return new ObjectStorageError(
        'denied',
        `${where}: ${code}: let the user of the service read and write there`,
        code,
      );
    const isOfName = ['ENAMETOOLONG', 'ENOTDIR', 'EISDIR', 'ELOOP'].includes(code);
    const kind: ObjectStorageFault = isOfName ? 'wrong' : 'unavailable';
    return new ObjectStorageError(kind, `${where}: the file system answers ${code}`, code);
  }

  /** Opens the folder of an object, made if necessary, once its path from the root is durable. */
  async #openParent(folder: DataFolder, below: string): Promise<FileHandle> {
    if (this.#durable === below) {
      const known = await absentAs(undefined, openEntry(folder, below, FOLDER_FLAGS));
      if (known !== undefined) return known;
    }
    let [at, path] = [await openEntry(folder, '', FOLDER_FLAGS), ''];
    for (const name of below === '' ? [] : below.split('/')) {
      await using parent = at;
      const entry = `${folder.entriesOf(parent.fd, path)}/${name}`;
      await mkdir(entry, { mode: 0o700 }).catch((error: unknown) => {
        if (codeOf(error) !== 'EEXIST') throw error;
      });
      // Also for a folder that exists: the process that made it may have been killed before.
      await parent.sync();
      path = path === '' ? name : `${path}/${name}`;
      at = await openEntry(folder, path, FOLDER_FLAGS);
    }
    this.#durable = below;
    return at;
  }

  /** @returns false when there is an entry of that name, which is kept. */
  async #publish(temporary: string, path: string): Promise<boolean> {
    const { link = linkFile } = this.#options;
    try {
      await link(temporary, path);
      return true;
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return false;
      if (!NO_HARD_LINKS.has(codeOf(error))) throw error;
    }
    if ((await absentAs(undefined, lstat(path))) !== undefined) return false;
    await rename(temporary, path);
    return true;
  }

  async #requireSame(folder: DataFolder, key: string, body: Uint8Array): Promise<void> {
    await using file = await openEntry(folder, key, constants.O_RDONLY);
    const stats = await file.stat();
    requireFile(key, stats, Number.POSITIVE_INFINITY);
    const isSame = stats.size === body.length && (await readAt(file, 0, stats.size)).equals(body);
    if (isSame) return;
    throw new ObjectStorageError('conflict', `${this.name}: put ${key}: it has other bytes, which are kept`);
  }

  async #read(folder: DataFolder, key: string, { range, maxBytes }: GetOptions): Promise<Buffer | undefined> {
    const file = await absentAs(undefined, openEntry(folder, key, constants.O_RDONLY));
    if (file === undefined) return undefined;
    try {
      const stats = await file.stat();
      requireFile(key, stats, Number.POSITIVE_INFINITY);
      const at = range?.at ?? 0;
      const bytes = Math.max(0, Math.min(range?.bytes ?? stats.size, stats.size - at));
      if (bytes > maxBytes)
        throw new ObjectStorageError(
          'too-large',
          `${this.name}: get ${key}: it has ${bytes} bytes, and at most ${maxBytes} are expected`,
        );
      return await readAt(file, at, bytes);
    } finally {
      await file.close();
    }
  }

  async #removeLeftOver(folder: DataFolder): Promise<void> {
    for (const name of await readdir(folder.entry('.'))) {
      if (!name.startsWith(TEMPORARY)) continue;
      const stats = await absentAs(undefined, lstat(folder.entry(name)));
      if (stats?.isFile() === true && this.#options.clock.now() - stats.mtimeMs > LEFT_OVER_MS)
        await absentAs(undefined, unlink(folder.entry(name)));
    }
  }
}

async function writeDurably(path: string, body: Uint8Array): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.writeFile(body);
  await file.sync();
}

/** @returns fewer bytes when the file was truncated meanwhile. */
async function readAt(file: FileHandle, at: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  let filled = 0;
  while (filled < bytes) {
    const { bytesRead } = await file.read(buffer, filled, bytes - filled, at + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}
