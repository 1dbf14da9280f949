import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * The number of seals that a key may make with random 96-bit nonces (NIST SP 800-38D, section 8.3), and lower
 * limits.
 */
export interface SealLimits {
  /** Maximum number of seals that one durable reservation covers. */
  readonly reserve: number;
  /** Number of seals after which the key should be rotated. */
  readonly rotateAt: number;
  /** Maximum number of seals of a key. */
  readonly max: number;
}

export const SEAL_LIMITS: SealLimits = { reserve: 2 ** 20, rotateAt: 2 ** 30, max: 2 ** 32 };

/** Unknown others that may have sealed under a key version. */
export interface UnknownSealers {
  /** Known from BunKMS: other copies of the storage, any number of them. */
  readonly takenOver: boolean;
  /** Inferred from a gap in the storage: the key existed before the project. */
  readonly missing: boolean;
}

/**
 * The limits left when others may have sealed under the key version. After a take-over, the key is rotated at
 * once. A gap in the storage counts as many seals as a key makes until its rotation. It only lowers the
 * maximum, because anyone can remove data from the storage.
 */
export function limitsAfter(limits: SealLimits, { takenOver, missing }: UnknownSealers): SealLimits {
  const { reserve, rotateAt, max } = limits;
  // Leaves some seals until the rotation, also to a restored project, which counts as due for one already.
  if (takenOver) return { ...limits, rotateAt: 0, max: Math.min(max, rotateAt + reserve) };
  return missing ? { ...limits, max: max - Math.min(rotateAt, max - rotateAt) } : limits;
}

/**
 * Seals that a part of the log may contain beyond the durable reservation, if it includes the next
 * reservation. A crash that tears the part forgets them. Between the rotation of a key and its maximum there
 * is room for millions of such crashes.
 */
const UNRESERVED_SEALS = 256;
/** Seals of an open store's first reservation. */
const RESERVE_AT_FIRST = 256;

export interface SealPlan {
  /**
   * Whether the reservation must be durable before anything is sealed; otherwise both may be written
   * together.
   */
  readonly mustWait: boolean;
  readonly reservation: SealCount | undefined;
}

/** The durable number of seals of a key version. */
export interface SealCount {
  readonly version: number;
  readonly count: number;
}

/**
 * Counts the seals of the current key version. They are reserved durably, many at a time. A crash forgets at
 * most the seals of one unacknowledged part, and counts at most one reservation too many.
 */
export class SealBudget {
  readonly #limits: SealLimits;
  readonly #version: number;
  readonly #counts: Map<number, number>;
  /** The count when the store was opened. */
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

  /** True when the key should be rotated. */
  get rotationDue(): boolean {
    return this.#used >= this.#limits.rotateAt;
  }

  /**
   * Plans the reservation of `seals` more.
   *
   * @throws AppError `key_exhausted` when the key may not make as many.
   */
  planFor(seals: number): SealPlan {
    const { max } = this.#limits;
    const need = this.#used + seals;
    // Small at first: unused reservations count as used when the store closes.
    const reserve = Math.min(this.#limits.reserve, Math.max(RESERVE_AT_FIRST, 2 * (need - this.#before)));
    if (need > max) throw new AppError('key_exhausted');
    const isReserved = need + reserve / 2 <= this.#reserved || this.#reserved === max;
    if (isReserved) return { mustWait: false, reservation: undefined };
    const reservation = { version: this.#version, count: Math.min(max, need + reserve) };
    return { mustWait: need > this.#reserved + UNRESERVED_SEALS, reservation };
  }

  /** Called when a reservation is durable. */
  reserved({ count }: SealCount): void {
    this.#counts.set(this.#version, Math.max(count, this.#reserved));
  }

  /** The durable reservations of each version. */
  get durable(): SealCount[] {
    return [...this.#counts].map(([version, count]) => ({ version, count }));
  }

  /** Counts one seal. */
  sealed(): void {
    this.#used++;
  }

  /**
   * Returns unused reservations.
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
