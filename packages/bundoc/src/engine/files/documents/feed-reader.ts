import { changePageOf, horizonAt } from '../../port/change-page.ts';
import type { ChangePage, Position, SealedChange, SealedPage, SealedPageLimits } from '../../port/port.ts';
import type { StoreReader } from './store-reader.ts';

/** As `ProjectStore.changes`. */
export function readChanges(
  reader: StoreReader,
  after: Position,
  limit: number,
  horizon: Position = 0,
): ChangePage {
  const known = horizonAt(reader, after, horizon);
  const states = reader.changedAfter(after).take(limit).toArray();
  return changePageOf(states, reader.lastSeq, known);
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
