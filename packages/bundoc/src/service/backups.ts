import { Readable } from 'node:stream';
import { AppError } from '@bundoc/shared/errors';
import { type BackupPorts, createBackup } from '../backup/write-backup.ts';

/** Backups that are made at a time. Each reads the whole of a project. */
const BACKUPS_MAX = 4;
/** Bytes that wait for a reader who does not keep up; the next block is made when there is room. */
const WAITING_BYTES_MAX = 1_048_576;

/** Makes backups of projects while they are in use; one of a project at a time. */
export class Backups {
  readonly #ports: BackupPorts;
  readonly #running = new Set<string>();

  constructor(ports: BackupPorts) {
    this.#ports = ports;
  }

  /**
   * A backup, as it is made.
   *
   * @throws AppError `project_not_found`, `rate_limited` while enough are made; those of the project.
   */
  async begin(project: string): Promise<Readable> {
    if (this.#running.has(project) || this.#running.size >= BACKUPS_MAX)
      throw new AppError('rate_limited', { retryAfterS: 10, detail: 'another backup is being made' });
    this.#running.add(project);
    try {
      const pieces = await createBackup(project, this.#ports);
      const stream = Readable.from(pieces, { objectMode: false, highWaterMark: WAITING_BYTES_MAX });
      // Also when nobody came to read a byte of it, so that what makes it never began.
      stream.once('close', () => this.#running.delete(project));
      return stream;
    } catch (error) {
      this.#running.delete(project);
      throw error;
    }
  }
}
