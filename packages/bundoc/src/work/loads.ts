import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Little is less than the mean, divided by this. */
const LITTLE = 2;
/** Time that a piece of work is expected to take while nothing is known, and at least, microseconds. */
const UNKNOWN_US = 4_000;
const EXPECTED_US_MIN = 100;
/** The part of an expected time that the latest piece determines. */
const LATEST = 1 / 8;
/** Subjects whose expected time is remembered. */
const REMEMBERED_MAX = 4_096;

/** A piece of work. */
export interface Loaded {
  readonly key: ShareKey;
  /** Time that it has taken. */
  readonly usedUs: number;
  /** Time that it counts for while it is unfinished; 0 before it is added. */
  loadUs: number;
}

interface Load {
  pieces: number;
  us: number;
}

/**
 * The work that each subject has asked for: its unfinished pieces that wait, or have waited, for the
 * processor. Each counts for the time that the latest pieces of its subject took, or that it has taken itself.
 */
export class Loads {
  readonly #loads = new Map<string, Load>();
  #piecesOfAll = 0;
  #usOfAll = 0;
  /** Time that the latest pieces of a subject took, the latest subject last. */
  readonly #expectedUs = new Map<string, number>();

  /** Whether a subject has much less work than others have, or much shorter pieces. */
  hasLittle(subject: string): boolean {
    const { us, pieces } = this.#loads.get(subject) ?? { us: 0, pieces: 0 };
    return (
      us * LITTLE * this.#loads.size < this.#usOfAll ||
      us * LITTLE * this.#piecesOfAll < this.#usOfAll * pieces
    );
  }

  /** Counts a piece of work until it ends. */
  add(work: Loaded): void {
    if (work.loadUs > 0) return;
    const { subject } = work.key;
    const load = this.#loads.get(subject) ?? { pieces: 0, us: 0 };
    load.pieces++;
    this.#piecesOfAll++;
    this.#loads.set(subject, load);
    this.#grow(work, load, Math.max(this.#expectedUs.get(subject) ?? UNKNOWN_US, work.usedUs));
  }

  /** It has taken time. */
  took(work: Loaded): void {
    const load = this.#loads.get(work.key.subject);
    if (work.loadUs > 0 && work.usedUs > work.loadUs && load !== undefined)
      this.#grow(work, load, work.usedUs);
  }

  end(work: Loaded): void {
    if (work.usedUs > 0) this.#learn(work);
    const { subject } = work.key;
    const load = this.#loads.get(subject);
    if (work.loadUs === 0 || load === undefined) return;
    this.#grow(work, load, 0);
    this.#piecesOfAll--;
    if (--load.pieces === 0) this.#loads.delete(subject);
  }

  #grow(work: Loaded, load: Load, us: number): void {
    load.us += us - work.loadUs;
    this.#usOfAll += us - work.loadUs;
    work.loadUs = us;
  }

  #learn({ key: { subject }, usedUs }: Loaded): void {
    const before = this.#expectedUs.get(subject) ?? usedUs;
    this.#expectedUs.delete(subject);
    this.#expectedUs.set(subject, Math.max(EXPECTED_US_MIN, before + (usedUs - before) * LATEST));
    if (this.#expectedUs.size <= REMEMBERED_MAX) return;
    const [oldest] = this.#expectedUs.keys();
    if (oldest !== undefined) this.#expectedUs.delete(oldest);
  }
}
