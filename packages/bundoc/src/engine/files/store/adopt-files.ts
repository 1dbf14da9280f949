import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Position } from '../../port/port.ts';
import { positionAfterLoss } from '../../port/positions.ts';
import type { DocumentState } from '../../port/state.ts';
import { getFileName } from '../documents/document-files.ts';
import type { FoundFile, RemainsPlace, SalvageScan } from './salvage-scan.ts';

/**
 * Adds documents to the catalog whose latest revision exists only in a file. They come last in the change
 * feed, so that no follower misses them. In lists, they come before documents from the log, in the order of
 * creation. If commits may be lost, followers must restart, because some may have read them.
 *
 * @returns the names of the files.
 */
export function adoptFiles(
  { cipher }: Pick<RemainsPlace, 'cipher'>,
  remains: SalvageScan,
  found: ReadonlyMap<string, FoundFile>,
  clock: Clock,
): string[] {
  const { catalog } = remains.store;
  const isRebuilt = remains.catalogFault !== undefined;
  const known = new Map([...catalog.states()].map((state) => [getFileName(state), state]));
  const later = [...found.values()]
    .filter((file) => isLater(remains, known.get(file.fileName), file))
    .sort((a, b) => order(a.metadata, b.metadata));
  const isWhole = !isRebuilt && !remains.endIsUnknown && remains.lostSeqs.length === 0;
  const base = seqBase(remains, isWhole, clock.now());
  const places = isRebuilt ? placesAmong(known.values(), later, remains.firstSeq ?? base + 1) : undefined;
  let seq = base;
  for (const { metadata, fileName, size } of later) {
    const before = known.get(fileName);
    seq++;
    catalog.apply({
      collection: metadata._collection,
      id: metadata._id,
      fileName: Buffer.from(fileName, 'hex'),
      seq,
      createdSeq: before?.deletedMs === 0 ? before.createdSeq : (places?.get(fileName) ?? seq),
      createdMs: Date.parse(metadata._created),
      rev: Buffer.from(metadata._rev, 'hex'),
      // The key version of the file is unknown. The oldest one makes sure that the file is re-sealed.
      keyVersion: cipher.oldestVersion,
      size,
      deletedMs: 0,
    });
  }
  // Without the catalog, missing files and deletions cannot be detected.
  catalog.restore(seq, isWhole ? catalog.purgedSeq : base);
  return later.map(({ fileName }) => fileName);
}

/** The position after which new positions begin, so that none is ever used twice. */
function seqBase({ store, lostSeqs }: SalvageScan, isWhole: boolean, nowMs: number): Position {
  const highest = Math.max(store.catalog.lastSeq, ...lostSeqs.map(({ to }) => to ?? 0));
  return isWhole ? highest : positionAfterLoss(highest, nowMs);
}

/**
 * Whether a file has the latest revision of its document: only the file has the document, or the commit of
 * this revision is lost. With the catalog, all earlier revisions of the file are known. Without it, the time
 * of the update decides.
 */
function isLater(
  remains: SalvageScan,
  state: DocumentState | undefined,
  { fileName, metadata }: FoundFile,
): boolean {
  if (state === undefined) return true;
  if (!remains.filesMayBeLater || remains.knownRevs.get(fileName)?.has(metadata._rev) === true) return false;
  const updatedMs = Date.parse(metadata._updated);
  // The latest known change of the document.
  const knownMs = state.deletedMs || (remains.updatedMs.get(fileName) ?? state.createdMs);
  return remains.catalogFault === undefined ? updatedMs >= knownMs : updatedMs > knownMs;
}

function order(a: DocumentMetadata, b: DocumentMetadata): number {
  if (a._created !== b._created) return a._created < b._created ? -1 : 1;
  if (a._id !== b._id) return a._id < b._id ? -1 : 1;
  return a._collection < b._collection ? -1 : 1;
}

/**
 * Assigns list positions to documents that exist only in files. The time of creation orders them among
 * `known`: each gets the highest free number below that of the next document. If clocks went backwards, there
 * may be fewer free numbers than files.
 */
function placesAmong(
  known: Iterable<DocumentState>,
  later: readonly FoundFile[],
  limit: number,
): ReadonlyMap<string, number> {
  const placed = [...known].filter(({ createdSeq }) => createdSeq < limit);
  placed.sort((a, b) => a.createdMs - b.createdMs);
  const taken = new Set(placed.map(({ createdSeq }) => createdSeq));
  const places = new Map<string, number>();
  let next = limit;
  for (const { fileName, metadata } of later.toReversed()) {
    for (let last = placed.at(-1); last !== undefined; last = placed.at(-1)) {
      if (last.createdMs <= Date.parse(metadata._created)) break;
      next = Math.min(next, last.createdSeq);
      placed.pop();
    }
    do next--;
    while (taken.has(next));
    if (next <= 0) break;
    places.set(fileName, next);
  }
  return places;
}
