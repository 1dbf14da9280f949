import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * How often a key may seal with random 96-bit nonces (NIST SP 800-38D, section 8.3), and limits below that.
 */
export interface SealLimits {
  /** Seals that one durable reservation covers at most. */
  readonly reserve: number;
  /** Seals after which the key should be rotated. */
  readonly rotateAt: number;
  /** Seals that a key may make at most. */
  readonly max: number;
}

export const SEAL_LIMITS: SealLimits = { reserve: 2 ** 20, rotateAt: 2 ** 30, max: 2 ** 32 };

/** Unknown others that may have sealed under a key version. */
export interface UnknownSealers {
  /** By BunKMS's word: an administrator has let a copy of the storage take the place of another. */
  readonly takenOver: number;
  /** By what the storage lacks: the key was there before the project. */
  readonly missing: number;
}

/**
 * What is left of the limits when others may have sealed under the key version: each of them is counted as
 * what a key seals until it is rotated. What the storage lacks leaves less to seal, and makes nobody rotate
 * the key: anybody can remove something from it.
 */
export function limitsAfter(limits: SealLimits, { takenOver, missing }: UnknownSealers): SealLimits {
  // Something is left in any case.
  const unknown = (sealers: number) => Math.min(sealers * limits.rotateAt, limits.max - limits.rotateAt);
  return {
    ...limits,
    rotateAt: limits.rotateAt - unknown(takenOver),
    max: limits.max - unknown(takenOver + missing),
  };
}

/**
 * Seals that a part of the log may hold beyond the durable reservation, if it brings the next reservation
 * itself. A crash that tears the part forgets them. Between the rotation of a key and its end there is room
 * for millions of such crashes.
 */
const UNRESERVED_SEALS = 256;
/** Seals of the first reservation of an open store. */
const RESERVE_AT_FIRST = 256;

export interface SealPlan {
  /**
   * Whether the reservation must be durable before anything is sealed; otherwise it may go along with what
   * is.
   */
  readonly mustWait: boolean;
  readonly reservation: SealCount | undefined;
}

/** How often a version of the key has sealed, as far as is durable. */
export interface SealCount {
  readonly version: number;
  readonly count: number;
}

/**
 * Counts the seals of the current key version. They are reserved durably, many at a time: a crash forgets at
 * most those of one part that was never acknowledged, and counts at most one reservation too many.
 */
export class SealBudget {
  readonly #limits: SealLimits;
  readonly #version: number;
  readonly #counts: Map<number, number>;
  /** When the store was opened. */
  readonly #before: number;
  #used: number;

  /** @param counts the durable counts, of any versions. */
  constructor(limits: SealLimits, version: number, counts: Iterable<SealCount>) {
    this.#limits = limits;
    this.#version = version;
    this.#counts = new Map();
    for (const { version: of, count } of counts)
      this.#counts.set(of, Math.max(count, this.#counts.get(of) ?? 0));
    this.#used = this.#reserved;
    this.#before = this.#used;
  }

  /** True once the key should be rotated. */
  get rotationDue(): boolean {
    return this.#used >= this.#limits.rotateAt;
  }

  /**
   * How `seals` more are reserved.
   *
   * @throws AppError `key_exhausted` when the key may not make as many.
   */
  planFor(seals: number): SealPlan {
    const { max } = this.#limits;
    const need = this.#used + seals;
    // Small at first: what is reserved and not used when the store closes counts as used.
    const reserve = Math.min(this.#limits.reserve, Math.max(RESERVE_AT_FIRST, 2 * (need - this.#before)));
    if (need > max) throw new AppError('key_exhausted');
    const isReserved = need + reserve / 2 <= this.#reserved || this.#reserved === max;
    if (isReserved) return { mustWait: false, reservation: undefined };
    const reservation = { version: this.#version, count: Math.min(max, need + reserve) };
    return { mustWait: need > this.#reserved + UNRESERVED_SEALS, reservation };
  }

  /** A reservation is durable. */
  reserved({ count }: SealCount): void {
    this.#counts.set(this.#version, Math.max(count, this.#reserved));
  }

  /** What is durably reserved, of each version. */
  get durable(): SealCount[] {
    return [...this.#counts].map(([version, count]) => ({ version, count }));
  }

  /** Counts one seal. */
  sealed(): void {
    this.#used++;
  }

  /**
   * Gives back what is reserved and was not used.
   *
   * @returns the exact counts; the caller makes them durable.
   */
  settle(): SealCount[] {
    this.#counts.set(this.#version, this.#used);
    return [...this.#counts].map(([version, count]) => ({ version, count }));
  }

  get #reserved(): number {
    return this.#counts.get(this.#version) ?? 0;
  }
}
