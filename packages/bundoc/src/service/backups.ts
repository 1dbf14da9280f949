import { Readable } from 'node:stream';
import type { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import { shareIn } from '@bundoc/shared/shares/share-key';
import { type BackupDeps, createBackup } from '../operations/write-backup.ts';
import { createServiceShares } from '../work/service-shares.ts';

/** Maximum bytes that wait for a slow reader; the next block is made when there is space. */
const WAITING_BYTES_MAX = 1_048_576;

/** Makes backups of projects in use, one at a time for each project. */
export class Backups {
  readonly #ports: BackupDeps;
  readonly #share: Pool;
  readonly #running = new Set<string>();

  constructor(ports: BackupDeps, share = createServiceShares().backups) {
    this.#ports = ports;
    this.#share = share;
  }

  /**
   * Starts a backup and returns its stream.
   *
   * @throws AppError `project_not_found`; `rate_limited`, `overloaded` while too many are running; those of
   *   the project.
   */
  async begin(project: string): Promise<Readable> {
    if (this.#running.has(project))
      throw new AppError('rate_limited', { retryAfterS: 10, detail: 'another backup is being made' });
    using held = new DisposableStack();
    const key = shareIn(project);
    const hold = this.#share.tryTake(key, 1);
    if (hold === undefined) throw this.#share.refusal(key, 1);
    held.use(hold);
    this.#running.add(project);
    held.defer(() => this.#running.delete(project));
    const pieces = await createBackup(project, this.#ports);
    const stream = Readable.from(pieces, { objectMode: false, highWaterMark: WAITING_BYTES_MAX });
    const all = held.move();
    // Even if nobody has read a byte, so that the generator never started.
    stream.once('close', () => all.dispose());
    return stream;
  }
}
