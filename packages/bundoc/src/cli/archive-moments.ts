import { type ArchiveReader, type Chain, firstOf } from '../engine/files/archive/lineage.ts';
import type { ObjectHead } from '../engine/files/archive/object.ts';
import { readableHead } from '../engine/files/archive/restore.ts';

/** The first moment to which a chain can be restored, milliseconds since 1970; undefined for none. */
export async function firstMoment(reader: ArchiveReader, chain: Chain): Promise<number | undefined> {
  const { tip } = chain;
  const from = firstOf(chain);
  const isRestorable = ({ round }: ObjectHead) => round !== undefined && round.first >= from;
  if (!isRestorable(tip)) return undefined;
  let best = tip;
  let low = from;
  let high = tip.n;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    let n = middle;
    let head = await readableHead(reader, chain, n);
    while (head === undefined && ++n < high) head = await readableHead(reader, chain, n);
    if (head !== undefined && !isRestorable(head)) low = n + 1;
    else [high, best] = [middle, head ?? best];
  }
  return best.timeMs;
}
