/** Over so many seconds the pace of a body, or of a reader, is measured. */
const WINDOW_S = 5;
/** Who is slower may be cut while a room is more than half full, bytes a second. */
export const PACE_MIN = 16_384;
/**
 * A request that has waited for so long has others make room for it, milliseconds. It is refused much later.
 */
export const MAKE_ROOM_AFTER_MS = 2_000;

/** How fast a transfer proceeds. */
export class Pace {
  /** What had been transferred, second by second; the first one is a window ago. */
  readonly #totals: number[] = [0];

  /** To be called each second, with all bytes that were transferred so far. */
  note(totalBytes: number): void {
    this.#totals.push(totalBytes);
    if (this.#totals.length > WINDOW_S + 1) this.#totals.shift();
  }

  /** Bytes a second; more than any minimum until the window has passed. */
  get bytesPerS(): number {
    if (this.#totals.length <= WINDOW_S) return Number.POSITIVE_INFINITY;
    return ((this.#totals.at(-1) ?? 0) - (this.#totals[0] ?? 0)) / WINDOW_S;
  }
}

/** Those that are too slow, the slowest first. */
export function slowest<T extends { readonly pace: Pace }>(transfers: Iterable<T>): T[] {
  return bySpeed(transfers).filter(({ pace }) => pace.bytesPerS < PACE_MIN);
}

/** The slowest first; those whose pace is not known yet last. */
export function bySpeed<T extends { readonly pace: Pace }>(transfers: Iterable<T>): T[] {
  const speedOf = ({ pace }: T): number => Math.min(pace.bytesPerS, Number.MAX_VALUE);
  return [...transfers].sort((one, other) => speedOf(one) - speedOf(other));
}
