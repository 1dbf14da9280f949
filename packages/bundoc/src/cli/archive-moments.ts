import { type ArchiveReader, type Chain, firstOf, idIn } from '../engine/files/archive/lineage.ts';
import { ArchiveDamaged, type ObjectHead } from '../engine/files/archive/object.ts';

/** The first moment to which a chain can be restored, milliseconds since 1970; undefined for none. */
export async function firstMoment(reader: ArchiveReader, chain: Chain): Promise<number | undefined> {
  const { tip } = chain;
  const from = firstOf(chain);
  const isRestorable = ({ round }: ObjectHead) => round !== undefined && round.first >= from;
  if (!isRestorable(tip)) return undefined;
  const missing = new Set(chain.missing);
  let best = tip;
  let low = from;
  let high = tip.n;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    let n = middle;
    while (n < high && missing.has(n)) n++;
    const head = n === high ? undefined : await headAt(reader, chain, n);
    if (head !== undefined && !isRestorable(head)) low = n + 1;
    else [high, best] = [middle, head ?? best];
  }
  return best.timeMs;
}

/** @throws ArchiveDamaged; ObjectStorageError. */
export async function headAt(reader: ArchiveReader, chain: Chain, n: number): Promise<ObjectHead> {
  const id = idIn(chain, n);
  if (id === undefined) throw new ArchiveDamaged(`object ${n} is missing`);
  return await reader.head(id);
}
