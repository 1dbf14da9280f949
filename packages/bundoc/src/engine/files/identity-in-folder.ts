import { join } from 'node:path';
import { type AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { ageMs, type Clock, type Instant, instant, systemClock } from '@bundoc/shared/runtime/clock';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import {
  formatStorageFile,
  newStorageFile,
  parseStorageFile,
  STORAGE_FILE,
  STORAGE_FILE_BYTES,
  type StorageFile,
  type StorageIdentity,
  storageIdMissing,
} from '../identity/storage-file.ts';
import { SMALL_FILE_BYTES_MAX } from '../projects/project-file.ts';
import { type Disk, replaceFile } from './disk/disk.ts';

/**
 * Folders with content of projects in the data folder: the projects, their common log, and moved projects.
 */
const CONTENT_FOLDERS = ['projects', 'log', 'moved'] as const;

/**
 * Reads the identity of a data folder, or creates one if the folder has no content.
 *
 * @param dataDir exists, and this process holds it exclusively.
 * @throws StartRefused when it is damaged, or missing beside content; AppError of the disk.
 */
export async function identifyFolder(
  disk: Disk,
  dataDir: string,
  clock: Clock = systemClock,
): Promise<StorageIdentity> {
  const identity = new IdentityInFolder(disk, dataDir, clock);
  if ((await disk.read(identity.path, SMALL_FILE_BYTES_MAX)) === undefined) {
    for (const name of CONTENT_FOLDERS)
      if (((await disk.list(join(dataDir, name))) ?? []).length > 0) throw storageIdMissing(identity.path);
    await identity.write(newStorageFile());
  }
  await identity.read();
  return identity;
}

/** The identity of a data folder that one process holds exclusively. */
class IdentityInFolder implements StorageIdentity {
  readonly #disk: Disk;
  readonly #dataDir: string;
  readonly #changing = new Mutex();
  readonly #clock: Clock;
  #changedAt: Instant;

  constructor(disk: Disk, dataDir: string, clock: Clock) {
    this.#disk = disk;
    this.#dataDir = dataDir;
    this.#clock = clock;
    this.#changedAt = instant(clock);
  }

  get path(): string {
    return join(this.#dataDir, STORAGE_FILE);
  }

  async read(): Promise<StorageFile> {
    const content = await this.#disk.read(this.path, SMALL_FILE_BYTES_MAX);
    if (content === undefined) throw storageIdMissing(this.path);
    return parseStorageFile(this.path, content.toString());
  }

  change(change: (present: StorageFile) => StorageFile): Promise<StorageFile> {
    return this.#changing.run(async () => {
      const file = change(await this.read());
      try {
        await this.write(file);
      } catch (error) {
        if (!hasCode(error, 'disk_full')) throw error;
        await this.#overwrite(Buffer.from(formatStorageFile(file)), error);
      }
      this.#changedAt = instant(this.#clock);
      return file;
    });
  }

  /**
   * Overwrites the file in place, so that a service can start and serve reads on a full disk. @throws `full`
   * when the file is longer than a sector.
   */
  async #overwrite(content: Buffer, full: AppError): Promise<void> {
    const present = await this.#disk.read(this.path, SMALL_FILE_BYTES_MAX);
    if (content.length !== STORAGE_FILE_BYTES || present?.length !== STORAGE_FILE_BYTES) throw full;
    const file = await this.#disk.openFile(this.path);
    try {
      await file.writeDurably(0, content);
    } finally {
      await file.close();
    }
  }

  async ageS(): Promise<number> {
    return ageMs(this.#clock, this.#changedAt) / 1_000;
  }

  async write(file: StorageFile): Promise<void> {
    await replaceFile(this.#disk, this.#dataDir, this.path, Buffer.from(formatStorageFile(file)));
  }
}
