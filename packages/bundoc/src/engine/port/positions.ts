import type { Position } from './port.ts';

/** More positions than a project uses in a millisecond, on average since its positions last jumped. */
const POSITIONS_IN_MS = 64;
/**
 * What a project skips where its positions are ahead of the clock, because clocks were set back or differ. No
 * more: a project far ahead of the clock would not skip anything at the next take-over.
 */
const SKIPPED_MS = 60_000;

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
  return last < positionAt(nowMs) ? positionAt(nowMs) : last + positionAt(SKIPPED_MS);
}
