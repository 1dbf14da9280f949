import { AppError } from '@bundoc/shared/errors';
import type { SealLimits } from '../embedded/seal-budget.ts';
import type { Database, Statement } from './database.ts';

const RESERVE: Statement = {
  name: 'bundoc-reserve-seals-2',
  text: `UPDATE bundoc.key_versions SET seals = seals + $3::bigint
         WHERE project = $1 AND version = $2 AND seals <= $4::bigint - $3::bigint RETURNING seals`,
};

export interface SharedSealsOptions {
  readonly database: Database;
  readonly project: string;
  readonly version: number;
  readonly limits: SealLimits;
  /** Told, with each reservation, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/**
 * This node's part of what a key version may seal. It is reserved durably, many seals at a time, before they are made: what a crash
 * leaves unused is counted as used, and no node counts less than it made.
 */
export class SharedSeals {
  readonly #options: SharedSealsOptions;
  #left = 0;

  constructor(options: SharedSealsOptions) {
    this.#options = options;
  }

  /** Takes so many seals. @throws AppError `key_exhausted` when the key may not make as many, and those of the database. */
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
    const { limits, version, onRotationDue } = this.#options;
    for (const seals of [missing + limits.reserve, missing]) {
      const reserved = await this.#add(seals);
      if (reserved === undefined) continue;
      this.#left += seals;
      if (reserved >= limits.rotateAt) onRotationDue(version);
      return;
    }
    throw new AppError('key_exhausted');
  }

  /** @returns all that are reserved then; undefined when that would be more than the key may make. */
  async #add(seals: number): Promise<number | undefined> {
    const { database, project, version, limits } = this.#options;
    const [row] = await database.query(RESERVE, [project, version, seals, limits.max]);
    return row?.[0] as number | undefined;
  }
}
