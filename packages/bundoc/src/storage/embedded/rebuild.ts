import { basename, dirname, join } from 'node:path';
import type { Clock } from '@bundoc/shared/clock';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { LARGE_FILE_BYTES_MAX, makeDirectoryDurably, replaceFile } from './disk.ts';
import { DOCS_FOLDER, documentPath, openOwnDocument } from './document-files.ts';
import { INDEX_FILE } from './index-file.ts';
import { NO_SEGMENT } from './journal.ts';
import type { JournalFolder } from './journal-folder.ts';
import type { StorePlace } from './project-loader.ts';
import type { DocumentState } from './record.ts';
import { type FoundFile, type Remains, readFiles, readRemains, type SeqRange } from './remains.ts';
import { SEAL_LIMITS, type SealCount } from './seal-budget.ts';
import { CATALOG_FILE, encodeSnapshot } from './snapshot.ts';
import { nameOf, type OnProgress } from './verify.ts';

const JOURNAL_FOLDER = 'journal';

export interface RebuildOptions {
  readonly clock: Clock;
  /** Where what is replaced is kept: names end in this. */
  readonly suffix: string;
  /** Whether acknowledged commits that are damaged may be given up. */
  readonly acceptLoss: boolean;
  readonly onProgress: OnProgress;
}

/** A document that could not be saved. What is known of it depends on what is left. */
export interface LostDocument {
  readonly file: string;
  readonly collection?: string;
  readonly id?: string;
}

export interface Rebuilt {
  /** What was wrong; nothing was done when there is nothing. */
  readonly faults: readonly string[];
  /** What was done, sentence by sentence. */
  readonly done: readonly string[];
  /** Sequence numbers of commits that may be lost. */
  readonly lostSeqs: readonly SeqRange[];
  readonly lost: readonly LostDocument[];
  /** Documents whose state was taken from their file, since neither catalog nor journal has it. */
  readonly adopted: number;
}

/** Acknowledged commits are damaged, and nobody said that they may be lost. Nothing was changed. */
export class LossNotAccepted extends Error {
  override readonly name = 'LossNotAccepted';
}

/** More sequence numbers than one journal segment can use up. */
const SEQS_IN_SEGMENT_MAX = 524_288;
/** More documents than a rebuild can open, and so number anew, in a millisecond. */
const SEQS_IN_MS_MAX = 50;

/**
 * Makes a store whole again whose catalog is missing or damaged, or whose journal is damaged in the middle.
 *
 * A missing catalog is made of the journal, which knows the order, and of the document files: a new snapshot that names the oldest
 * segment of the unbroken end of the journal. The journal itself is not touched, and is replayed when the project is
 * opened. A journal with damage inside cannot be replayed: all whole frames are brought into files and catalog, as a checkpoint
 * does, and its segments are put aside.
 *
 * Until the new catalog is renamed into place, the old one and the whole journal are there, so a crash leaves a project that can be
 * repaired again.
 *
 * @throws LossNotAccepted before anything was changed.
 */
export async function rebuildStore(place: StorePlace, options: RebuildOptions): Promise<Rebuilt> {
  const { disk, directory } = place;
  const { suffix, clock } = options;
  const remains = await readRemains(place);
  const { catalogFault, journalFaults, lostSeqs } = remains;
  if (journalFaults.length > 0 && !options.acceptLoss)
    throw new LossNotAccepted(`${journalFaults.join('; ')}; ${sentenceOf(lostSeqs)}`);
  const faults = catalogFault === undefined ? journalFaults : [catalogFault, ...journalFaults];
  const done: string[] = [];
  for (const name of [DOCS_FOLDER, 'tmp']) {
    if ((await disk.list(join(directory, name))) !== undefined) continue;
    await makeDirectoryDurably(disk, join(directory, name));
    if (name === DOCS_FOLDER) done.push(`made the folder ${name}`);
  }
  if (faults.length === 0) return { faults, done, lostSeqs: [], lost: [], adopted: 0 };

  const { found, bad } = await readFiles(place, options.onProgress);
  const adopted = adoptFiles(place, remains, found, clock);
  await disk.syncFiles(adopted.map((fileName) => join(directory, documentPath(fileName))));
  const { catalog, usedKeys, sealedByFile } = remains.store;
  // A journal that is replayed would put older bytes in the place of a file that was found to be later.
  const isReplayed = journalFaults.length === 0 && !adopted.some((fileName) => sealedByFile.has(fileName));
  const lost: LostDocument[] = [];
  let aside = bad.filter(
    (path) => !sealedByFile.has(basename(path)) || path !== documentPath(basename(path)),
  );
  if (!isReplayed) {
    const whole = new Map([...found].map(([fileName, { metadata }]) => [fileName, metadata._rev]));
    await bringFiles(place, remains, whole);
    lost.push(...buryMissing(remains, whole, clock));
    const living = new Set([...catalog.states()].filter(({ deletedMs }) => deletedMs === 0).map(nameOf));
    const isOwned = (path: string) => path === documentPath(basename(path)) && living.has(basename(path));
    aside = [...bad, ...[...whole.keys()].map(documentPath)].filter((path) => !isOwned(path));
  }
  if (aside.length > 0) {
    await moveAside(place, aside, join(directory, `${DOCS_FOLDER}${suffix}`));
    done.push(`kept ${aside.length} files that are no documents in ${DOCS_FOLDER}${suffix}`);
    for (const path of aside) if (!lost.some(({ file }) => file === path)) lost.push({ file: path });
  }
  // A freed segment that was removed must not come back after a power cut, under a number that is given again from here on.
  if (remains.folder.exists) await disk.syncDirectory(join(directory, JOURNAL_FOLDER));
  await keepCopy(place, CATALOG_FILE, suffix, done);
  const head = {
    start: isReplayed ? remains.start : { firstLive: remains.numberBehind, before: NO_SEGMENT },
    lastSeq: catalog.lastSeq,
    purgedSeq: catalog.purgedSeq,
    seals: sealsAfterRepair(place, remains.store.sealCounts),
  };
  const snapshot = encodeSnapshot(place.project, place.cipher, head, usedKeys, catalog);
  // It is of the history before; places in this one may be others.
  await disk.remove(join(directory, INDEX_FILE));
  await replaceFile(disk, join(directory, 'tmp'), join(directory, CATALOG_FILE), snapshot);
  done.push(
    catalogFault === undefined
      ? 'wrote a new catalog'
      : 'rebuilt the catalog from the journal and the document files',
  );
  if (!remains.folder.exists) await makeDirectoryDurably(disk, join(directory, JOURNAL_FOLDER));
  else if (!isReplayed) {
    await moveAside(place, segmentFiles(remains.folder), join(directory, `${JOURNAL_FOLDER}${suffix}`));
    done.push(`kept the old journal in ${JOURNAL_FOLDER}${suffix}`);
  }
  return { faults, done, lostSeqs: journalFaults.length > 0 ? lostSeqs : [], lost, adopted: adopted.length };
}

/** Keeps what is about to be replaced beside it, durably. */
export async function keepCopy(
  { disk, directory }: Pick<StorePlace, 'disk' | 'directory'>,
  name: string,
  suffix: string,
  done: string[],
): Promise<void> {
  const [path, kept] = [join(directory, name), join(directory, `${name}${suffix}`)];
  try {
    const content = await disk.read(path, LARGE_FILE_BYTES_MAX);
    if (content === undefined) return;
    await disk.createFile(kept, content);
  } catch (error) {
    // What cannot be copied is moved: it is no file of a project.
    if (!hasCode(error, 'project_damaged')) throw error;
    await disk.rename(path, kept);
  }
  await disk.syncDirectory(directory);
  done.push(`kept the old ${name} as ${name}${suffix}`);
}

/** Files of the journal, those that keep a project from being opened last: a crash on the way leaves it closed. */
function segmentFiles({ segments, blank, stubs, beheaded }: JournalFolder): string[] {
  const paths = [...segments.values(), ...blank].map(({ path }) => path);
  return [...paths, ...stubs, ...beheaded.map(({ path }) => path)].map((path) =>
    join(JOURNAL_FOLDER, basename(path)),
  );
}

async function moveAside(
  { disk, directory }: StorePlace,
  paths: readonly string[],
  to: string,
): Promise<void> {
  await makeDirectoryDurably(disk, to);
  for (const path of paths) await disk.rename(join(directory, path), join(to, basename(path)));
  await disk.syncDirectory(to);
  for (const folder of new Set(paths.map((path) => dirname(path))))
    await disk.syncDirectory(join(directory, folder));
}

function sentenceOf(lostSeqs: Rebuilt['lostSeqs']): string {
  const ranges = lostSeqs.map(({ from, to }) => (to === undefined ? `from ${from} on` : `${from} to ${to}`));
  return ranges.length === 0 ? 'no sequence number is missing' : `commits ${ranges.join(', ')} may be lost`;
}

/**
 * Adds to the catalog what only files know. Their documents change last in the change feed, behind all that is known, so that
 * nobody who follows it misses them; in lists they stand before what the journal has, in the order of their creation.
 *
 * @returns the names of the files.
 */
function adoptFiles(
  { cipher }: StorePlace,
  remains: Remains,
  found: ReadonlyMap<string, FoundFile>,
  clock: Clock,
): string[] {
  const { catalog } = remains.store;
  const isRebuilt = remains.catalogFault !== undefined;
  const known = new Map([...catalog.states()].map((state) => [nameOf(state), state]));
  const later = [...found.values()]
    .filter((file) => isLater(cipher, remains, known.get(file.fileName), file))
    .sort((a, b) => order(a.metadata, b.metadata));
  const base = seqBase(remains, clock);
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
      // Which version sealed the file is not known: taken for the oldest, it is sealed anew in any case.
      keyVersion: cipher.oldestVersion,
      size,
      deletedMs: 0,
    });
  }
  // Deletions from before the journal are forgotten with the catalog: who follows the feed from there must begin anew.
  const forgotten = remains.firstSeq === undefined ? base : remains.firstSeq - 1;
  catalog.restore(seq, isRebuilt ? forgotten : catalog.purgedSeq);
  return later.map(({ fileName }) => fileName);
}

/**
 * The sequence number behind which new ones begin, so that none is ever given twice. Where the latest commits may be missing, it
 * is above all that can have been given: by the time and the segments there were, however often this has been done before.
 */
function seqBase(
  { store, lostSeqs, catalogFault, firstSeq, endIsUnknown, numberBehind }: Remains,
  clock: Clock,
): number {
  const highest = Math.max(store.catalog.lastSeq, ...lostSeqs.map(({ to }) => to ?? 0));
  const isKnown = !endIsUnknown && (catalogFault === undefined || firstSeq !== undefined);
  return isKnown
    ? highest
    : Math.max(highest, clock.now() * SEQS_IN_MS_MAX + numberBehind * SEQS_IN_SEGMENT_MAX);
}

/**
 * Whether a file is the latest of its document: nothing else knows it, or it came of a commit that is lost. With the catalog at
 * hand every revision is known that the file had before the journal; without it only the time tells which is later.
 */
function isLater(
  cipher: ProjectCipher,
  remains: Remains,
  state: DocumentState | undefined,
  { fileName, metadata }: FoundFile,
): boolean {
  if (state === undefined) return true;
  if (!remains.filesMayBeLater || remains.knownRevs.get(fileName)?.has(metadata._rev) === true) return false;
  const updatedMs = Date.parse(metadata._updated);
  const knownMs = lastChangeMs(cipher, remains, state);
  return remains.catalogFault === undefined ? updatedMs >= knownMs : updatedMs > knownMs;
}

/** When a document last changed, as far as is known. */
function lastChangeMs(cipher: ProjectCipher, { store }: Remains, state: DocumentState): number {
  if (state.deletedMs !== 0) return state.deletedMs;
  const sealed = store.sealedByFile.get(nameOf(state));
  const opened = sealed === undefined ? undefined : openOwnDocument(cipher, nameOf(state), sealed);
  return opened !== undefined && 'metadata' in opened
    ? Date.parse(opened.metadata._updated)
    : state.createdMs;
}

function order(a: DocumentMetadata, b: DocumentMetadata): number {
  if (a._created !== b._created) return a._created < b._created ? -1 : 1;
  if (a._id !== b._id) return a._id < b._id ? -1 : 1;
  return a._collection < b._collection ? -1 : 1;
}

/**
 * Places in the order of lists for documents that only files know, in the order of their creation among those of `known`: for
 * each the highest number below the next one's that nobody has. Where clocks leave no such room, there are fewer places than files.
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

/**
 * Brings the files to what the journal says, durably, as the file writer would have; and `whole`, the revision in each, with
 * them. What the catalog knows to be later than the journal's latest whole frame is left alone.
 */
async function bringFiles(
  { disk, directory, cipher }: StorePlace,
  { store }: Remains,
  whole: Map<string, string>,
): Promise<void> {
  const removed: string[] = [];
  for (const state of store.catalog.states()) {
    const fileName = nameOf(state);
    if (!store.sealedByFile.has(fileName)) continue;
    const path = join(directory, documentPath(fileName));
    const sealed = store.sealedByFile.get(fileName);
    if (sealed === undefined || state.deletedMs !== 0) {
      if (sealed !== undefined || state.deletedMs === 0) continue;
      if (await disk.remove(path)) removed.push(path);
      whole.delete(fileName);
      continue;
    }
    const rev = state.rev.toString('hex');
    const opened = openOwnDocument(cipher, fileName, sealed);
    if ('fault' in opened || opened.metadata._rev !== rev) continue;
    if (whole.get(fileName) === rev) continue;
    const [failure] = await disk.writeFiles([{ path, content: sealed }]);
    if (failure !== undefined) throw failure;
    whole.set(fileName, rev);
  }
  await disk.syncDirectory(join(directory, DOCS_FOLDER));
  // All of them: a file that is there may not be durable yet, and until the journal is put aside it need not be.
  const kept = [...whole.keys()].map((fileName) => join(directory, documentPath(fileName)));
  await disk.syncFiles([...removed, ...kept]);
}

/** Documents that the catalog has and no file holds any more end as deleted: readers and followers of the feed are told. */
function buryMissing({ store }: Remains, whole: ReadonlyMap<string, string>, clock: Clock): LostDocument[] {
  const { catalog } = store;
  const lost: LostDocument[] = [];
  for (const state of [...catalog.states()]) {
    if (state.deletedMs !== 0 || whole.get(nameOf(state)) === state.rev.toString('hex')) continue;
    lost.push({ file: documentPath(nameOf(state)), collection: state.collection, id: state.id });
    catalog.apply({ ...state, seq: catalog.lastSeq + 1, size: 0, deletedMs: Math.max(1, clock.now()) });
  }
  return lost;
}

/**
 * How often the key has sealed was in what is damaged, so the worst is taken: that a rotation is due, which Bundoc then asks for
 * at its next write.
 */
function sealsAfterRepair({ cipher }: StorePlace, known: readonly SealCount[]): SealCount[] {
  return [...known, { version: cipher.version, count: SEAL_LIMITS.rotateAt }];
}
