import { AppError } from '@bundoc/shared/contract/app-error';
import type { ChangePage, Position } from './port.ts';
import type { DocumentState } from './state.ts';

/** How far a project has come: its last commit, and the deletions that are forgotten. */
export interface FeedEnds {
  readonly lastSeq: Position;
  readonly purgedSeq: Position;
}

/**
 * The horizon of a reader that continues after a position. @throws AppError `position_gone`, as
 * `ProjectStore.changes`.
 */
export function horizonAt({ lastSeq, purgedSeq }: FeedEnds, after: Position, horizon: Position): Position {
  // A reader that starts from zero cannot have missed a purged tombstone.
  const known = after === 0 ? purgedSeq : horizon;
  // A position after the last commit is of another history: that of a later copy, or of another project.
  if (purgedSeq > Math.max(after, known) || after > lastSeq) throw new AppError('position_gone');
  return known;
}

/** A page of changes. @param end where a page without changes ends. */
export function changePageOf(
  states: readonly Pick<DocumentState, 'collection' | 'id' | 'rev' | 'seq' | 'deletedMs'>[],
  end: Position,
  horizon: Position,
): ChangePage {
  return {
    changes: states.map(({ collection, id, rev, seq, deletedMs }) => ({
      ref: { collection, id },
      rev: rev.toString('hex'),
      deleted: deletedMs !== 0,
      position: seq,
    })),
    position: states.at(-1)?.seq ?? end,
    horizon,
  };
}
