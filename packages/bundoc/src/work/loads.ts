import type { ShareKey } from '@bundoc/shared/shares/share-key';

/**
 * Little is much less than the mean of all subjects. It is the mean of what they have asked for, or of the
 * length of their pieces, divided by these. At any moment, one of equal subjects has some pieces less.
 */
const LITTLE_LOAD = 8;
const LITTLE_PIECE = 2;
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
  /** Whether it was refused: it would have taken more. */
  readonly isRefused: boolean;
}

interface Load {
  readonly pieces: number;
  readonly us: number;
}

const NOTHING: Load = { pieces: 0, us: 0 };

function meanOf({ pieces, us }: Load): number {
  return pieces === 0 ? 0 : us / pieces;
}

/**
 * The work that each subject has asked for: its unfinished pieces that wait, or have waited, for the
 * processor. Each counts for the time that the latest pieces of its subject took, or for its own if that is
 * more.
 */
export class Loads {
  readonly #loads = new Map<string, Load>();
  /** Sums over all subjects: of their times, and of the mean times of their pieces. */
  #usOfAll = 0;
  #meansOfAll = 0;
  /** Time that the latest pieces of a subject took, the latest subject last. */
  readonly #expectedUs = new Map<string, number>();

  /** Whether a subject has much less work than others have, or much shorter pieces. */
  hasLittle(subject: string): boolean {
    const load = this.#loads.get(subject) ?? NOTHING;
    const subjects = this.#loads.size;
    return (
      load.us * subjects * LITTLE_LOAD < this.#usOfAll ||
      meanOf(load) * subjects * LITTLE_PIECE < this.#meansOfAll
    );
  }

  /** Whether a client other than this subject has unfinished pieces. */
  hasOthers(subject: string): boolean {
    return this.#loads.size > (this.#loads.has(subject) ? 1 : 0) + (this.#loads.has('') ? 1 : 0);
  }

  /** Time that a piece of a subject is expected to take, by its latest ones. */
  expectedUs(subject: string): number {
    return this.#expectedUs.get(subject) ?? UNKNOWN_US;
  }

  /** Counts a piece of work until it ends. */
  add(work: Loaded): void {
    if (work.loadUs > 0) return;
    const { subject } = work.key;
    const load = this.#loads.get(subject) ?? NOTHING;
    const us = Math.max(this.expectedUs(subject), work.usedUs);
    work.loadUs = us;
    this.#set(subject, { pieces: load.pieces + 1, us: load.us + us });
  }

  /** It has taken time. */
  took(work: Loaded): void {
    const { subject } = work.key;
    const load = this.#loads.get(subject);
    if (work.loadUs === 0 || work.usedUs <= work.loadUs || load === undefined) return;
    this.#set(subject, { pieces: load.pieces, us: load.us + work.usedUs - work.loadUs });
    work.loadUs = work.usedUs;
  }

  end(work: Loaded): void {
    const { subject } = work.key;
    // Refused work would have taken more than it did.
    const knownUs = work.isRefused ? this.expectedUs(subject) : 0;
    if (work.usedUs > knownUs) this.#learn(work);
    const load = this.#loads.get(subject);
    if (work.loadUs === 0 || load === undefined) return;
    this.#set(subject, { pieces: load.pieces - 1, us: load.us - work.loadUs });
    work.loadUs = 0;
  }

  #set(subject: string, load: Load): void {
    const before = this.#loads.get(subject) ?? NOTHING;
    this.#usOfAll += load.us - before.us;
    this.#meansOfAll += meanOf(load) - meanOf(before);
    if (load.pieces > 0) this.#loads.set(subject, load);
    else this.#loads.delete(subject);
    // Sums of fractions are not exact.
    if (this.#loads.size === 0) [this.#usOfAll, this.#meansOfAll] = [0, 0];
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
