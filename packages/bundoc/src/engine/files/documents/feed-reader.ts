import { AppError } from '@bundoc/shared/contract/app-error';
import type { ChangePage, Position, SealedChange, SealedPage, SealedPageLimits } from '../../port/port.ts';
import type { StoreReader } from './store-reader.ts';

/** As `ProjectStore.changes`. */
export function readChanges(
  reader: StoreReader,
  after: Position,
  limit: number,
  horizon: Position = 0,
): ChangePage {
  const { lastSeq, purgedSeq } = reader;
  // A reader that starts from zero cannot have missed a purged tombstone.
  const known = after === 0 ? purgedSeq : horizon;
  // A position after the last commit is of another history: that of a later copy, or of another project.
  if (purgedSeq > Math.max(after, known) || after > lastSeq) throw new AppError('position_gone');
  const states = reader.changedAfter(after).take(limit).toArray();
  return {
    changes: states.map((state) => ({
      ref: { collection: state.collection, id: state.id },
      rev: state.rev.toString('hex'),
      deleted: state.deletedMs !== 0,
      position: state.seq,
    })),
    position: states.at(-1)?.seq ?? Math.max(after, lastSeq),
    horizon: known,
  };
}

/** As `ProjectStore.sealedChanges`. */
export async function readSealedChanges(
  reader: StoreReader,
  after: Position,
  { limit, bytesMax }: SealedPageLimits,
): Promise<SealedPage> {
  const { lastSeq, purgedSeq: forgotten } = reader;
  const states = reader.changedAfter(after).take(limit).toArray();
  const changes: SealedChange[] = [];
  let isComplete = states.length < limit;
  let position = after;
  let bytes = 0;
  for (const state of states) {
    if (bytes >= bytesMax) return { changes, position, isComplete: false, forgotten };
    const change = state.deletedMs === 0 ? await reader.readSealed(state) : { state, sealed: undefined };
    if (change === undefined) isComplete = false;
    else changes.push(change);
    bytes += change?.sealed?.length ?? 0;
    position = state.seq;
  }
  return { changes, position: states.length < limit ? lastSeq : position, isComplete, forgotten };
}
