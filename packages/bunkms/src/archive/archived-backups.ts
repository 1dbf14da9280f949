import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openFileSource } from '@bundoc/shared/files/file-source';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { BackupDestination, FolderContent } from '../recovery/backup-destination.ts';
import { BACKUP_EVERY_MS, stampOf } from '../recovery/backup-folder.ts';
import type { BackupFacts } from '../recovery/write-backup.ts';
import { backupName, backupsPrefix, hashOf, partName } from './names.ts';
import { backupsIn } from './read-backups.ts';

/** Small enough that the hash of a part delays requests by a few milliseconds at most. */
const PART_BYTES = 2_097_152;
/** How far back the newest backup is looked for, milliseconds. */
const LOOK_BACK_MS = 7 * 86_400_000;

/**
 * The archive into which BunKMS backs itself up. A backup is made in a folder beside the store, and shipped
 * once it is verified. It counts when all its parts are stored. Nothing is overwritten or deleted.
 */
export class ArchivedBackups implements BackupDestination {
  readonly path: string;
  readonly #objects: ObjectStorage;
  readonly #spool: string;
  readonly #installation: () => Promise<string>;
  #newestMs = 0;
  #reading: Promise<FolderContent> | undefined;

  /** @param spool a folder of this process alone; what is in it is removed. */
  constructor(objects: ObjectStorage, spool: string, installation: () => Promise<string>) {
    this.path = objects.name;
    this.#objects = objects;
    this.#spool = spool;
    this.#installation = installation;
  }

  get newestMs(): number {
    return this.#newestMs;
  }

  async make(): Promise<void> {
    await rm(this.#spool, { recursive: true, force: true });
    makeFolder(this.#spool);
  }

  pathOf(timeMs: number): string {
    return join(this.#spool, `${stampOf(timeMs)}.backup`);
  }

  /**
   * Asks the target only when the newest known backup is old. Concurrent calls share one question: each one
   * to a folder that hangs takes a thread.
   *
   * @throws ObjectStorageError; AppError of the store.
   */
  read(nowMs: number): Promise<FolderContent> {
    this.#reading ??= this.#read(nowMs).finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(nowMs: number): Promise<FolderContent> {
    const distance = (timeMs: number) => Math.abs(nowMs - timeMs);
    if (distance(this.#newestMs) >= BACKUP_EVERY_MS) {
      const since = stampOf(Math.max(0, nowMs - LOOK_BACK_MS));
      // By the distance to now, as in a folder: the clock may have been set back.
      let newestMs = 0;
      for await (const { timeMs } of backupsIn(this.#objects, await this.#installation(), since))
        if (distance(timeMs) <= distance(newestMs)) newestMs = timeMs;
      this.#newestMs = newestMs;
    }
    const isFresh = distance(this.#newestMs) < BACKUP_EVERY_MS;
    return { isFresh, isBeingWritten: false, left: [], surplus: [] };
  }

  /** An archive keeps everything. */
  async remove(): Promise<void> {}

  async ship(path: string, { audit, id, created_at }: BackupFacts, onProgress: () => void): Promise<void> {
    try {
      await using source = await openFileSource(path);
      const timeMs = Date.parse(created_at);
      const prefix = `${backupsPrefix(await this.#installation())}${backupName({ timeMs, seq: audit.seq, id })}/`;
      const of = Math.ceil(source.sizeBytes / PART_BYTES);
      for (let part = 1; part <= of; part++) {
        const bytes = await source.read((part - 1) * PART_BYTES, PART_BYTES);
        await this.#objects.put(prefix + partName({ part, of, hash: hashOf(bytes) }), bytes);
        onProgress();
      }
      this.#newestMs = timeMs;
    } finally {
      await rm(path, { force: true });
    }
  }
}
