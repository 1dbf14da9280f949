import { OpenError } from '@bundoc/shared/aead';
import { AppError } from '@bundoc/shared/errors';
import type { SealLimits } from '../embedded/seal-budget.ts';
import type { Database, Statement } from './database.ts';
import type { RowCipher } from './row-cipher.ts';
import { orUndefined } from './rows.ts';

/** More than a sealed count has: of a longer value, only the beginning is read, and does not open. */
const SEALED_BYTES_MAX = 64;
/** The sealed count of a version, as far as it can be one. */
export const SEALED_COUNT = `substr(seals, 1, ${SEALED_BYTES_MAX})`;
const READ: Statement = {
  name: 'bundoc-read-seals-1',
  text: `SELECT ${SEALED_COUNT} FROM bundoc.key_versions WHERE project = $1 AND version = $2`,
};
const WRITE: Statement = {
  name: 'bundoc-write-seals-1',
  text: `UPDATE bundoc.key_versions SET seals = $4
         WHERE project = $1 AND version = $2 AND ${SEALED_COUNT} IS NOT DISTINCT FROM $3 RETURNING 1`,
};
/** Nodes that count at once: each lets one be first at most. */
const TRIES_MAX = 10;

export interface SharedSealsOptions {
  readonly database: Database;
  readonly project: string;
  readonly limits: SealLimits;
  /** Told, with each reservation, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

interface Known {
  readonly sealed: Buffer | null;
  readonly count: number;
}

/**
 * This node's part of what a key version may seal. It is reserved durably, many seals at a time, before they are made: what a crash
 * leaves unused is counted as used, and no node counts less than it made.
 *
 * The count is sealed under that version, and changed from the very value that the change was decided on. So nobody without the key makes it one at
 * which a node asks for a rotation; one that does not open makes writes fail.
 */
export class SharedSeals {
  readonly #options: SharedSealsOptions;
  readonly #rows: RowCipher;
  /** What was there last; undefined when it must be read again. */
  #known: Known | undefined;
  #left = 0;

  constructor(options: SharedSealsOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /** What the row of the version holds, so that it need not be read once more. */
  found(sealed: Buffer | null): void {
    this.#known = orUndefined(() => this.#opened(sealed));
  }

  /** Takes so many seals. @throws AppError `key_exhausted` when the key may not make as many; OpenError; those of the database. */
  async take(seals: number): Promise<void> {
    if (seals > this.#left) await this.#reserve(seals - this.#left);
    this.#left -= seals;
  }

  /** Gives back what was reserved and not used. */
  async settle(): Promise<void> {
    const unused = this.#left;
    if (unused === 0) return;
    this.#left = 0;
    await this.#add(-unused);
  }

  async #reserve(missing: number): Promise<void> {
    const { limits, onRotationDue } = this.#options;
    for (const seals of [missing + limits.reserve, missing]) {
      const reserved = await this.#add(seals);
      if (reserved === undefined) continue;
      this.#left += seals;
      if (reserved >= limits.rotateAt) onRotationDue(this.#rows.version);
      return;
    }
    throw new AppError('key_exhausted');
  }

  /** @returns all that are reserved then; undefined when that would be more than the key may make. @throws OpenError. */
  async #add(seals: number): Promise<number | undefined> {
    const { database, project, limits } = this.#options;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const known = await this.#present(tries === 0);
      // What was put back to an older count is not less than nothing.
      const count = Math.max(0, known.count + seals);
      if (count > limits.max && tries > 0) return undefined;
      if (count > limits.max) continue;
      const sealed = this.#rows.sealCount(count);
      const values = [project, this.#rows.version, known.sealed, sealed];
      if ((await database.query(WRITE, values)).length === 0) continue;
      this.#known = { sealed, count };
      return count;
    }
    throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  /** What the row says. @param mayBeOld whether another node may have changed it since. @throws OpenError, also where there is no row. */
  async #present(mayBeOld: boolean): Promise<Known> {
    const known = this.#known;
    // Once used, it is old: whatever comes of it.
    this.#known = undefined;
    if (mayBeOld && known !== undefined) return known;
    const { database, project } = this.#options;
    const [row] = await database.query(READ, [project, this.#rows.version]);
    if (row === undefined) throw new OpenError();
    return this.#opened(row[0] as Buffer | null);
  }

  #opened(sealed: Buffer | null): Known {
    return { sealed, count: this.#rows.openCount(this.#rows.version, sealed) };
  }
}
