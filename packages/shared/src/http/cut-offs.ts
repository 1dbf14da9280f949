import type { Hold, Pool } from '../admission/pool.ts';

/** Seconds over which the pace of a transfer is measured. */
const WINDOW_S = 5;
/** While more than half of the bytes are held, slower transfers are cut off; bytes per second. */
export const PACE_MIN = 16_384;
/** After this wait of a request, others must make room for it, milliseconds. Its refusal comes much later. */
const MAKE_ROOM_AFTER_MS = 2_000;
const SWEEP_EVERY_MS = 1_000;
/** Maximum of transfers that one sweep cuts off for waiting requests. */
const CUTS_MAX = 64;

/** A body that is being received, or an answer that is being sent. */
export interface Transfer {
  /** Absent before it begins. */
  readonly hold: Hold | undefined;
  /** Number of bytes transferred so far. */
  moved(): number;
  /** Ends it, and disposes of its hold at once. */
  cut(): void;
}

/**
 * Cuts off transfers that hold bytes of the gate. While more than half of the bytes are held, these are the
 * slow ones, the slowest first. While others wait long, they are those of the subject that holds most.
 */
export class CutOffs {
  readonly #bytes: Pool;
  /** The bytes of each transfer at each of the latest seconds. The first number is one window old. */
  readonly #transfers = new Map<Transfer, number[]>();
  #timer: NodeJS.Timeout | undefined;

  constructor(bytes: Pool) {
    this.#bytes = bytes;
  }

  add(transfer: Transfer): void {
    this.#transfers.set(transfer, [transfer.moved()]);
    this.#timer ??= setInterval(() => this.sweep(), SWEEP_EVERY_MS).unref();
  }

  delete(transfer: Transfer): void {
    this.#transfers.delete(transfer);
  }

  /** A timer calls it each second while there are transfers. */
  sweep(): void {
    if (this.#transfers.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    for (const [transfer, totals] of this.#transfers) {
      totals.push(transfer.moved());
      if (totals.length > WINDOW_S + 1) totals.shift();
    }
    for (const { transfer, pace } of this.#bySpeed()) {
      if (pace >= PACE_MIN || this.#bytes.held <= this.#bytes.capacity / 2) break;
      this.#cut(transfer);
    }
    const left = this.#bySpeed();
    for (let cuts = 0; cuts < CUTS_MAX; cuts++) {
      const subject = this.#bytes.greedySubject(MAKE_ROOM_AFTER_MS);
      const at = left.findIndex(({ transfer }) => transfer.hold?.account.subject.id === subject);
      const [next] = at < 0 ? [] : left.splice(at, 1);
      if (next === undefined) return;
      this.#cut(next.transfer);
    }
  }

  #cut(transfer: Transfer): void {
    this.#bytes.cuts++;
    this.#transfers.delete(transfer);
    transfer.cut();
  }

  /** Transfers in the order of their pace, the slowest first. Those with an unknown pace come last. */
  #bySpeed(): { readonly transfer: Transfer; readonly pace: number }[] {
    return Array.from(this.#transfers, ([transfer, totals]) => ({ transfer, pace: paceOf(totals) })).sort(
      (one, other) => one.pace - other.pace,
    );
  }
}

/** Bytes per second. */
function paceOf(totals: readonly number[]): number {
  if (totals.length <= WINDOW_S) return Number.MAX_VALUE;
  return ((totals.at(-1) ?? 0) - (totals[0] ?? 0)) / WINDOW_S;
}
