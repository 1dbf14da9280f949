import { join } from 'node:path';
import { type AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { ageMs, type Clock, type Instant, instant, systemClock } from '@bundoc/shared/runtime/clock';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import { SMALL_FILE_BYTES_MAX } from '../project-file.ts';
import {
  formatStorageFile,
  newStorageFile,
  parseStorageFile,
  STORAGE_FILE,
  STORAGE_FILE_BYTES,
  type StorageFile,
  type StorageIdentity,
  unidentified,
} from '../storage-file.ts';
import { type Disk, replaceFile } from './disk/disk.ts';

/**
 * What holds content of projects, below the data folder: the projects, a log of all of them, and what was
 * moved away.
 */
const CONTENT_FOLDERS = ['projects', 'log', 'moved'] as const;

/**
 * Which storage a data folder is. Made where the folder holds no content, and only there.
 *
 * @param dataDir exists, and is this process's alone.
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
      if (((await disk.list(join(dataDir, name))) ?? []).length > 0) throw unidentified(identity.path);
    await identity.write(newStorageFile());
  }
  await identity.read();
  return identity;
}

/** Which storage a data folder is that one process has to itself. */
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
    if (content === undefined) throw unidentified(this.path);
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
   * On a full disk, documents are still to be read after a start. @throws `full` where the file is longer
   * than a sector.
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
