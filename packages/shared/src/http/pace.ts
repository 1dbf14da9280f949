/** Seconds over which the pace of a body or a reader is measured. */
const WINDOW_S = 5;
/** Slower transfers may be cut off while more than half of their room is in use, bytes per second. */
export const PACE_MIN = 16_384;
/** Wait after which others must make room for a request, milliseconds. It is refused only much later. */
export const MAKE_ROOM_AFTER_MS = 2_000;

/** Measures the pace of a transfer. */
export class Pace {
  /** Totals at each second; the first is one window old. */
  readonly #totals: number[] = [0];

  /** Call it each second with the bytes transferred so far. */
  note(totalBytes: number): void {
    this.#totals.push(totalBytes);
    if (this.#totals.length > WINDOW_S + 1) this.#totals.shift();
  }

  /** Bytes per second; infinite until one window has passed. */
  get bytesPerS(): number {
    if (this.#totals.length <= WINDOW_S) return Number.POSITIVE_INFINITY;
    return ((this.#totals.at(-1) ?? 0) - (this.#totals[0] ?? 0)) / WINDOW_S;
  }
}

/** The transfers that are too slow, the slowest first. */
export function slowest<T extends { readonly pace: Pace }>(transfers: Iterable<T>): T[] {
  return bySpeed(transfers).filter(({ pace }) => pace.bytesPerS < PACE_MIN);
}

/** All transfers, the slowest first. Those with an unknown pace come last. */
export function bySpeed<T extends { readonly pace: Pace }>(transfers: Iterable<T>): T[] {
  const speedOf = ({ pace }: T): number => Math.min(pace.bytesPerS, Number.MAX_VALUE);
  return [...transfers].sort((one, other) => speedOf(one) - speedOf(other));
}
