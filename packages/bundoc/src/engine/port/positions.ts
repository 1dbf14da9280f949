import type { Position } from './port.ts';

/** More positions than a project uses in a millisecond, on average since its positions last jumped. */
const POSITIONS_IN_MS = 64;
/**
 * The time that a project skips if its positions are ahead of the clock, because clocks were set back or
 * differ. With a longer time, a project might be so far ahead that it skips nothing at the next take-over.
 */
const SKIPPED_MS = 60_000;

/**
 * A position that exceeds all positions in use at a time, in any copy of a storage. After a loss of commits,
 * a project continues after the position of that time and repeats none, even if the same copy is put back
 * often. Assumes that the clocks of BunKMS and Bundoc agree within a few minutes, and are not set back.
 */
export function positionAt(timeMs: number): Position {
  return timeMs * POSITIONS_IN_MS;
}

/** The position after which a project continues whose commits after `last` may be lost. */
export function positionAfterLoss(last: Position, nowMs: number): Position {
  return last < positionAt(nowMs) ? positionAt(nowMs) : last + positionAt(SKIPPED_MS);
}
