import { OpenError } from '@bundoc/shared/crypto/aead';
import type { SealLimits } from '../../port/seal-budget.ts';
import type { RowCipher } from './row-cipher.ts';

/** Longer than any sealed count: a longer value is truncated and therefore undecryptable. */
const SEALED_BYTES_MAX = 64;
/** The sealed count of a version, truncated to that length. */
export const SEALED_COUNT = `substr(seals, 1, ${SEALED_BYTES_MAX})`;
/** Number of seals after which a due rotation is requested again. */
const REMIND_EVERY = 2 ** 16;

export interface SealCounterOptions {
  readonly limits: Pick<SealLimits, 'rotateAt' | 'max'>;
  /** Called repeatedly once the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** A count to write in a transaction. */
export interface NextCount {
  readonly sealed: Buffer;
  readonly count: number;
  /** This node's seals that are counted for the first time. */
  readonly added: number;
}

/**
 * Counts this node's seals under a project's current key version. A transaction that writes sealed bytes
 * reads the count under the project's lock and writes the next one. Seals of failed attempts stay with this
 * node until an attempt succeeds; if the node dies, those of one transaction are lost.
 *
 * The count is sealed under its version: nobody without the key can write one that makes a node request a
 * rotation.
 */
export class SealCounter {
  readonly #options: SealCounterOptions;
  readonly #rows: RowCipher;
  /** The last value that was read or written here. */
  #known: { readonly sealed: Buffer; readonly count: number } | undefined;
  /** Seals that are in no count yet. */
  #uncounted = 0;
  #remindAt = 0;

  constructor(options: SealCounterOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /**
   * Number of seals that the version may still make.
   *
   * @param sealed the count's row under the project's lock; undefined without a row.
   * @throws OpenError.
   */
  left(sealed: Buffer | null | undefined): number {
    return Math.max(0, this.#options.limits.max - this.#countOf(sealed) - this.#uncounted);
  }

  /** Records seals, whatever the outcome of their transaction. */
  made(seals: number): void {
    this.#uncounted += seals;
  }

  /** The count including all seals of this node. @throws OpenError. */
  next(sealed: Buffer | null | undefined): NextCount {
    const added = this.#uncounted;
    const count = this.#countOf(sealed) + added;
    return { sealed: this.#rows.sealCount(count), count, added };
  }

  /** Called when a count has been committed. */
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
