import type { Position } from './port.ts';

/** More positions than a project uses in a millisecond, on average since its positions last jumped. */
const POSITIONS_IN_MS = 64;
/** What a project skips at least. It helps where clocks were set back, or differ. */
const SKIPPED_MIN = 2 ** 32;

/**
 * A position that exceeds each one that was in use at a time, in any copy of a storage. So when commits are
 * lost, a project continues after the position of that moment, and repeats none, however often the same copy
 * is put back. Assumes that the clocks of BunKMS and Bundoc agree within a few minutes, and are not set back.
 */
export function positionAt(timeMs: number): Position {
  return timeMs * POSITIONS_IN_MS;
}

/** The position after which a project continues whose commits after `last` may be lost. */
export function positionAfterLoss(last: Position, nowMs: number): Position {
  return Math.max(last + SKIPPED_MIN, positionAt(nowMs));
}
