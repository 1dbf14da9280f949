import { join } from 'node:path';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { documentPath, listDocumentFiles, openOwnDocument, readDocumentFile } from './document-files.ts';
import { type JournalStart, NO_SEGMENT } from './journal.ts';
import {
  isFirstFrameWiped,
  type JournalFolder,
  readJournalFolder,
  type SegmentOnDisk,
  surveyJournal,
} from './journal-folder.ts';
import { LoadedStore, loadSnapshot, type StorePlace } from './project-loader.ts';
import { type DocumentState, readRecords } from './record.ts';
import { scanSegment } from './segment-reader.ts';
import { CATALOG_FILE, CatalogDamaged } from './snapshot.ts';
import { inTurns, nameOf, type OnProgress } from './verify.ts';

/** Everything that is left of a store, read and weighed. */
export interface Remains {
  readonly store: LoadedStore;
  /** From where the journal counts. */
  readonly start: JournalStart;
  /** Behind every number that a segment has, or had as far as is known. */
  readonly numberBehind: number;
  readonly folder: JournalFolder;
  readonly catalogFault: string | undefined;
  readonly journalFaults: readonly string[];
  readonly lostSeqs: readonly SeqRange[];
  /** Acknowledged commits may be missing, so a file may be later than all that is known of its document. */
  readonly filesMayBeLater: boolean;
  /** Commits may be missing behind the last that is there. */
  readonly endIsUnknown: boolean;
  /** Lowest sequence number that the journal has. */
  readonly firstSeq: number | undefined;
  /** Revisions that each file is known to have had, by file name. */
  readonly knownRevs: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Both ends included; no `to` when it is not known how far it goes. */
export interface SeqRange {
  readonly from: number;
  readonly to?: number;
}

/** A document file that is whole. */
export interface FoundFile {
  readonly path: string;
  readonly fileName: string;
  readonly metadata: DocumentMetadata;
  readonly size: number;
}

/** Reads everything that is left of a store. Changes nothing. */
export async function readRemains(place: StorePlace): Promise<Remains> {
  const { disk, directory, cipher } = place;
  const folder = await readJournalFolder(disk, join(directory, 'journal'), cipher);
  let catalogFault: string | undefined;
  let store = new LoadedStore();
  let start: JournalStart;
  let topIsBlank = false;
  try {
    const loaded = await loadSnapshot(place);
    store = loaded.store;
    start = loaded.head.start;
  } catch (error) {
    if (!(error instanceof CatalogDamaged)) throw error;
    catalogFault = `${CATALOG_FILE}: ${error.message}`;
    ({ start, topIsBlank } = unbrokenEnd(folder));
  }
  const knownRevs = new Map<string, Set<string>>();
  const know = (state: DocumentState) => {
    const revs = knownRevs.get(nameOf(state)) ?? new Set();
    knownRevs.set(nameOf(state), revs.add(state.rev.toString('hex')));
  };
  for (const state of store.catalog.states()) know(state);
  const lostSeqs: SeqRange[] = [];
  let firstSeq: number | undefined;
  let seqBefore = store.catalog.lastSeq;
  let hole = false;
  const survey = surveyJournal(folder, start, (frame, afterHole) => {
    hole ||= afterHole;
    for (const record of readRecords(frame)) {
      if (record.kind !== 'document') continue;
      const { seq } = record.state;
      if (hole && seq > seqBefore + 1) lostSeqs.push({ from: seqBefore + 1, to: seq - 1 });
      hole = false;
      firstSeq = Math.min(firstSeq ?? seq, seq);
      seqBefore = Math.max(seqBefore, seq);
      know(record.state);
    }
    store.replay(frame);
  });
  const journalFaults = folder.exists ? survey.faults : ['the folder of the journal is missing'];
  const endIsUnknown = survey.endIsUnknown || hole || !folder.exists;
  if (endIsUnknown) lostSeqs.push({ from: seqBefore + 1 });
  return {
    store,
    start,
    numberBehind: numberBehind(folder, start, survey.next),
    folder,
    catalogFault,
    journalFaults,
    lostSeqs,
    filesMayBeLater: journalFaults.length > 0 || topIsBlank,
    endIsUnknown,
    firstSeq,
    knownRevs,
  };
}

/**
 * Where the journal begins that no catalog tells: the oldest segment from which each follows on the one before it, up to the last.
 * Freed ones have lost their first frame. A break at a segment that was not freed stays inside, and is a fault.
 */
function unbrokenEnd(folder: JournalFolder): { start: JournalStart; topIsBlank: boolean } {
  const last = Math.max(0, ...folder.segments.keys());
  const top = folder.segments.get(last);
  if (top === undefined || isFreed(top))
    return { start: { firstLive: last + 1, before: NO_SEGMENT }, topIsBlank: false };
  let first = top;
  for (;;) {
    const before = segmentBefore(folder, first.header.number);
    if (before === undefined) break;
    const tag = lastTagOf(before);
    const follows = first.header.previousId.equals(before.header.id) && first.header.previousTag.equals(tag);
    if (isFreed(before) || (!follows && isFirstFrameWiped(before.bytes))) break;
    first = before;
  }
  const { number, previousId, previousTag } = first.header;
  return {
    start: { firstLive: number, before: { id: previousId, tag: previousTag } },
    topIsBlank: isFirstFrameWiped(top.bytes),
  };
}

/** True for a segment whose first frame was wiped while others are left: it was freed. */
function isFreed({ seal, bytes }: SegmentOnDisk): boolean {
  return isFirstFrameWiped(bytes) && !scanSegment(seal, bytes).next().done;
}

function lastTagOf({ seal, bytes }: SegmentOnDisk): Buffer {
  let tag = Buffer.alloc(NO_SEGMENT.tag.length);
  for (const frame of scanSegment(seal, bytes)) tag = Buffer.from(frame.tag);
  return tag;
}

function numberBehind(folder: JournalFolder, start: JournalStart, next: JournalStart): number {
  const highest = Math.max(start.firstLive, next.firstLive, ...folder.segments.keys());
  return highest + folder.beheaded.length + 1;
}

/** The segment before one of this number. Where headers are damaged, numbers are missing, and what is older counts as well. */
function segmentBefore(folder: JournalFolder, number: number): SegmentOnDisk | undefined {
  if (folder.beheaded.length === 0) return folder.segments.get(number - 1);
  const older = [...folder.segments.keys()].filter((one) => one < number);
  return folder.segments.get(Math.max(...older));
}

/** Opens every document file. @returns those that are whole, by name, and the paths of all others. */
export async function readFiles(
  { disk, directory, cipher }: StorePlace,
  onProgress: OnProgress,
): Promise<{ found: Map<string, FoundFile>; bad: string[] }> {
  const paths = (await listDocumentFiles(disk, directory)) ?? [];
  const found = new Map<string, FoundFile>();
  const bad: string[] = [];
  await inTurns(paths, onProgress, async (path) => {
    const fileName = path.slice(path.lastIndexOf('/') + 1);
    const sealed = await readDocumentFile(disk, directory, path);
    const opened = Buffer.isBuffer(sealed) ? openOwnDocument(cipher, fileName, sealed) : undefined;
    if (
      path !== documentPath(fileName) ||
      !Buffer.isBuffer(sealed) ||
      opened === undefined ||
      'fault' in opened
    )
      bad.push(path);
    else found.set(fileName, { path, fileName, metadata: opened.metadata, size: sealed.length });
  });
  return { found, bad };
}
