import { OpenError } from '@bundoc/shared/crypto/aead';
import type { SealLimits } from '../../port/seal-budget.ts';
import type { RowCipher } from './row-cipher.ts';

/** Longer than any sealed count: a longer value is truncated and therefore undecryptable. */
const SEALED_BYTES_MAX = 64;
/** The sealed count of a version, truncated to that length. */
export const SEALED_COUNT = `substr(seals, 1, ${SEALED_BYTES_MAX})`;
/** Maximum number of seals that are counted in advance. */
const RESERVED_MAX = 256;
/** Number of seals after which a due rotation is requested again. */
const REMIND_EVERY = 2 ** 16;

export interface SealCounterOptions {
  readonly limits: SealLimits;
  /** Called repeatedly once the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** A count to write in a transaction. */
export interface NextCount {
  readonly sealed: Buffer;
  readonly count: number;
  /** This node's seals that are counted for the first time. */
  readonly added: number;
  /** Seals that it counts in advance. */
  readonly reserved: number;
}

/**
 * Counts this node's seals under a project's current key version. A transaction that needs more seals than
 * are counted reads the count under the project's lock and writes the next one. For commits it counts up to
 * {@link RESERVED_MAX} in advance, and the commits after it leave the count alone while these last. Seals of
 * failed attempts stay with this node: the next transaction that seals counts them. If the node dies, those
 * of one transaction are lost. What is reserved then, or when the project is closed, is counted and not made.
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
  /** Seals that are counted and not made yet. */
  #reserved = 0;
  #remindAt = 0;

  constructor(options: SealCounterOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /** Number of seals that are counted already. Only commits make them, one transaction at a time. */
  get reserved(): number {
    return this.#reserved;
  }

  /** Whether commits that seal so much may leave the count alone: never while others are in no count yet. */
  covers(seals: number): boolean {
    return this.#uncounted <= 0 && seals <= this.#reserved;
  }

  /** Records the seals of commits, whatever the outcome of their transaction: reserved ones first. */
  spend(seals: number): void {
    const reserved = Math.min(this.#reserved, seals);
    this.#reserved -= reserved;
    this.#uncounted += seals - reserved;
  }

  /**
   * Number of seals that the version may still make, beside the reserved ones.
   *
   * @param sealed the count's row under the project's lock; undefined without a row.
   * @throws OpenError.
   */
  left(sealed: Buffer | null | undefined): number {
    return Math.max(0, this.#options.limits.max - this.#countOf(sealed) - this.#uncounted);
  }

  /** Records seals of upkeep, whatever the outcome of its transaction: the reserve is for commits. */
  made(seals: number): void {
    this.#uncounted += seals;
  }

  /** The count including all seals of this node. @throws OpenError. */
  next(sealed: Buffer | null | undefined): NextCount {
    return this.#next(sealed, 0);
  }

  /** The same with seals in advance, as far as the version may make them. @throws OpenError. */
  reserve(sealed: Buffer | null | undefined): NextCount {
    const missing = Math.min(RESERVED_MAX, this.#options.limits.reserve) - this.#reserved;
    return this.#next(sealed, Math.max(0, Math.min(missing, this.left(sealed))));
  }

  /** Called when a count has been committed. */
  committed({ sealed, count, added, reserved }: NextCount): void {
    this.#uncounted -= added;
    this.#reserved += reserved;
    this.#known = { sealed, count };
    if (count < Math.max(this.#options.limits.rotateAt, this.#remindAt)) return;
    this.#remindAt = count + REMIND_EVERY;
    this.#options.onRotationDue(this.#rows.version);
  }

  #next(sealed: Buffer | null | undefined, reserved: number): NextCount {
    const added = this.#uncounted;
    const count = this.#countOf(sealed) + added + reserved;
    return { sealed: this.#rows.sealCount(count), count, added, reserved };
  }

  #countOf(sealed: Buffer | null | undefined): number {
    if (sealed === undefined) throw new OpenError();
    if (sealed !== null && this.#known?.sealed.equals(sealed)) return this.#known.count;
    const count = this.#rows.openCount(this.#rows.version, sealed);
    if (sealed !== null) this.#known = { sealed, count };
    return count;
  }
}
