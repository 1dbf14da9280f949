import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { type ArchiveReader, type Chain, firstOf, idIn, type ListedObject } from './lineage.ts';
import { ArchiveDamaged, objectKey, type RoundPlace } from './object.ts';
import { lastUpTo } from './restore.ts';

/** What a prune deletes. */
export interface PrunePlan {
  /** In the order in which they are deleted. */
  readonly objects: readonly ListedObject[];
  readonly bytes: number;
  /** From here on each moment stays, milliseconds since 1970; undefined when no round ended by the limit. */
  readonly keptFromMs: number | undefined;
}

/** Objects of a chain from `first` to `last`. */
interface Span {
  readonly first: number;
  readonly last: number;
  /** The number of the first object of the chain. */
  readonly chainFirst: number;
  /** 0 for the newest chain. */
  readonly rank: number;
}

/**
 * Finds the objects that no restore to the limit or a later moment reads. Of each chain that goes on after
 * the limit, and of the one that has the limit, the newest round before the limit stays, and everything after
 * it. The newest chain is never deleted.
 *
 * The order of deletion keeps the order of chains, which depends on their first numbers: chains that go as a
 * whole lose their last objects first. The others lose their first ones, a newer chain before an older one.
 * So a prune may be interrupted at each object, and repeated.
 *
 * @param limitMs milliseconds since 1970.
 * @throws ArchiveDamaged when a kept moment lacks an object; ObjectStorageError.
 */
export async function planPrune(reader: ArchiveReader, limitMs: number): Promise<PrunePlan> {
  const kept = new Map<string, Span[]>();
  const doomed = new Map<string, Span[]>();
  const floors = new Map<number, number>();
  let keptFromMs: number | undefined;
  let isServed = false;
  const chains = await reader.chains();
  const [damaged] = reader.damaged;
  if (damaged !== undefined) throw damaged.error;
  for (const [at, chain] of chains.entries()) {
    const round = (await lastUpTo(reader, chain, limitMs))?.round;
    const first = firstOf(chain);
    const served: RoundPlace | undefined = isServed ? undefined : round;
    isServed ||= served !== undefined;
    if (at > 0 && chain.tip.timeMs < limitMs && served === undefined) {
      addSpans(doomed, chain, at);
      continue;
    }
    addSpans(kept, chain, at);
    const floor = Math.max(first, round?.first ?? 0);
    // Branches share their beginning, and end up with the same first number.
    floors.set(first, Math.min(floor, floors.get(first) ?? floor));
    if (served === undefined) continue;
    // A prune leaves the newest round. Without its beginning, a chain is damaged, and others may be needed.
    if (served.first < first && (chain.tip.round?.first ?? 0) < first)
      throw new ArchiveDamaged(`objects that stay are missing, of which the first is number ${served.first}`);
    requireWhole(chain, floor);
    const end = served.first >= first ? idIn(chain, served.endedIn) : undefined;
    if (end !== undefined) keptFromMs = (await reader.head(end)).timeMs;
  }
  keepOrder(floors);
  return { ...(await listDeleted(reader, { kept, doomed, floors })), keptFromMs };
}

function addSpans(spans: Map<string, Span[]>, chain: Chain, rank: number): void {
  for (const { epoch, first, last } of chain.parts) {
    const known = spans.get(epoch) ?? [];
    known.push({ first, last, chainFirst: firstOf(chain), rank });
    spans.set(epoch, known);
  }
}

/** A chain that began later keeps a higher first number. */
function keepOrder(floors: Map<number, number>): void {
  let above = Number.POSITIVE_INFINITY;
  for (const [first, floor] of [...floors].sort(([a], [b]) => b - a)) {
    above = Math.min(floor, above - 1);
    floors.set(first, above);
  }
}

/** @throws ArchiveDamaged when an object from `floor` on is missing. */
function requireWhole({ missing }: Chain, floor: number): void {
  const needed = missing.filter((n) => n >= floor);
  if (needed.length > 0)
    throw new ArchiveDamaged(`objects that stay are missing, of which the first is number ${needed[0]}`);
}

interface Spans {
  readonly kept: ReadonlyMap<string, readonly Span[]>;
  readonly doomed: ReadonlyMap<string, readonly Span[]>;
  /** What stays of a chain that begins with a number. */
  readonly floors: ReadonlyMap<number, number>;
}

/** An object that no chain had when the plan was begun stays. */
async function listDeleted(
  reader: ArchiveReader,
  { kept, doomed, floors }: Spans,
): Promise<Pick<PrunePlan, 'objects' | 'bytes'>> {
  const ends: ListedObject[] = [];
  const beginnings: { readonly span: Span; readonly one: ListedObject }[] = [];
  let bytes = 0;
  for await (const one of reader.listed()) {
    const { epoch, n } = one.id;
    const isOf = ({ first, last }: Span) => n >= first && n <= last;
    const keeping = kept.get(epoch)?.filter(isOf) ?? [];
    const [span] = keeping;
    const isKept = keeping.some((span) => n >= (floors.get(span.chainFirst) ?? 0));
    if (isKept || (span === undefined && !doomed.get(epoch)?.some(isOf))) continue;
    if (span === undefined) ends.push(one);
    else beginnings.push({ span, one });
    bytes += one.bytes;
  }
  beginnings.sort(
    (a, b) => b.span.chainFirst - a.span.chainFirst || a.one.id.n - b.one.id.n || a.span.rank - b.span.rank,
  );
  return { objects: [...ends.reverse(), ...beginnings.map(({ one }) => one)], bytes };
}

/**
 * Deletes the objects of a plan, one after the other. After an error, plan again.
 *
 * @param onDeleted called after each, with its bytes.
 * @throws ObjectStorageError.
 */
export async function prune(
  storage: ObjectStorage,
  storageId: Buffer,
  { objects }: PrunePlan,
  onDeleted: (bytes: number) => void = () => undefined,
): Promise<void> {
  for (const { id, bytes } of objects) {
    await storage.delete(objectKey(storageId, id));
    onDeleted(bytes);
  }
}
