import { OpenError } from '@bundoc/shared/crypto/aead';
import type { SealLimits } from '../../seal-budget.ts';
import type { RowCipher } from './row-cipher.ts';

/** More than a sealed count has: of a longer value, only the beginning is read, and does not open. */
const SEALED_BYTES_MAX = 64;
/** The sealed count of a version, as far as it can be one. */
export const SEALED_COUNT = `substr(seals, 1, ${SEALED_BYTES_MAX})`;
/** Seals after which a rotation that is due is asked for again. */
const REMIND_EVERY = 2 ** 16;

export interface SealCounterOptions {
  readonly limits: Pick<SealLimits, 'rotateAt' | 'max'>;
  /** Called, now and then, when the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** A count as a transaction writes it. */
export interface NextCount {
  readonly sealed: Buffer;
  readonly count: number;
  /** Seals of this node that it counts for the first time. */
  readonly added: number;
}

/**
 * Counts what this node seals under a project's current key version. A transaction that writes what was
 * sealed reads the count under the project's lock and writes the next one. Seals of attempts that failed stay
 * with this node until one succeeds: the death of a node forgets those of one transaction.
 *
 * The count is sealed under its version: nobody without the key can write one at which a node asks for a
 * rotation.
 */
export class SealCounter {
  readonly #options: SealCounterOptions;
  readonly #rows: RowCipher;
  /** The last value that was opened or written here. */
  #known: { readonly sealed: Buffer; readonly count: number } | undefined;
  /** Seals that were made and are in no count. */
  #uncounted = 0;
  #remindAt = 0;

  constructor(options: SealCounterOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /**
   * Seals that the version may still make.
   *
   * @param sealed the count's row under the project's lock; undefined where there is no row.
   * @throws OpenError.
   */
  left(sealed: Buffer | null | undefined): number {
    return Math.max(0, this.#options.limits.max - this.#countOf(sealed) - this.#uncounted);
  }

  /** Seals are made, whatever becomes of them. */
  made(seals: number): void {
    this.#uncounted += seals;
  }

  /** The count with all seals that this node has made. @throws OpenError. */
  next(sealed: Buffer | null | undefined): NextCount {
    const added = this.#uncounted;
    const count = this.#countOf(sealed) + added;
    return { sealed: this.#rows.sealCount(count), count, added };
  }

  /** A count has been committed. */
  committed({ sealed, count, added }: NextCount): void {
    this.#uncounted -= added;
    this.#known = { sealed, count };
    if (count < Math.max(this.#options.limits.rotateAt, this.#remindAt)) return;
    this.#remindAt = count + REMIND_EVERY;
    this.#options.onRotationDue(this.#rows.version);
  }

  #countOf(sealed: Buffer | null | undefined): number {
    if (sealed === undefined) throw new OpenError();
    if (sealed !== null && this.#known?.sealed.equals(sealed)) return this.#known.count;
    const count = this.#rows.openCount(this.#rows.version, sealed);
    if (sealed !== null) this.#known = { sealed, count };
    return count;
  }
}
