import { dirname, join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { openOwnDocument } from '../../open-document.ts';
import type { OnProgress } from '../../port/reports.ts';
import { readCatalogStart } from '../catalog/catalog-start.ts';
import { CatalogDamaged } from '../catalog/snapshot.ts';
import { documentPath, inTurns, listDocumentFiles, readDocumentFile } from '../documents/document-files.ts';
import { decodeCarried } from '../log/carried-file.ts';
import { comparePlaces, isSamePlace, type Place } from '../log/layout.ts';
import { openSealedPart } from '../log/parts.ts';
import { PartsDamaged, type SealedPart } from '../log/sealed-part.ts';
import { PartsScan } from './parts-scan.ts';
import {
  CARRIED_BYTES_MAX,
  CARRIED_FOLDER,
  LoadedStore,
  loadSnapshot,
  type StorePlace,
} from './project-loader.ts';
import type { ViewedLog } from './viewed-log.ts';

/** A store to repair: no one writes to the log. */
export interface RemainsPlace extends StorePlace {
  readonly log: ViewedLog;
}

/** Everything that is left of a store. */
export interface SalvageScan {
  /** The state from catalog and log, without sealed bytes. */
  readonly store: LoadedStore;
  readonly parts: PartsLeft;
  /** Why the catalog is unusable. */
  readonly catalogFault: string | undefined;
  /** Faults of the project's parts that may have lost commits. */
  readonly partFaults: readonly string[];
  readonly lostSeqs: readonly SeqRange[];
  /**
   * Acknowledged commits may be missing, so a file may be later than the last known state of its document.
   */
  readonly filesMayBeLater: boolean;
  /** Commits may be missing after the last one found. */
  readonly endIsUnknown: boolean;
  /** The lowest sequence number in the parts. */
  readonly firstSeq: number | undefined;
  /** Known revisions of each file, by file name. */
  readonly knownRevs: ReadonlyMap<string, ReadonlySet<string>>;
  /** The update time of the latest revision in the parts, for files that have another one. */
  readonly updatedMs: ReadonlyMap<string, number>;
  /** Files whose last change in the parts is a deletion. */
  readonly deleted: ReadonlySet<string>;
}

/** The readable parts of a project. */
export interface PartsLeft {
  /** Its handles in the log: one, except after an interrupted repair. */
  readonly handles: ReadonlySet<string>;
  /** Parts that were carried from the log. */
  readonly carried: readonly SealedPart[];
  /** The last part to restore of each handle; without one, all parts are restored. */
  readonly newest: ReadonlyMap<string, Place>;
  /** Handles that may have had later parts, because frames of unknown projects are lost. */
  readonly doubtful: ReadonlySet<string>;
  /** The last part that the catalog covers: parts up to here are not restored. */
  readonly covered: Place | undefined;
}

/** A range that includes both ends. `to` is absent when it is unknown. */
export interface SeqRange {
  readonly from: number;
  readonly to?: number;
}

/** An undamaged document file. */
export interface FoundFile {
  readonly fileName: string;
  readonly metadata: DocumentMetadata;
  readonly size: number;
}

/**
 * Reads everything that is left of a store. Changes nothing, and keeps no sealed bytes except those of
 * carried parts.
 *
 * @param damage the damage to the parts that prevented loading, if any.
 */
export async function scanForSalvage(
  place: RemainsPlace,
  found: ReadonlyMap<string, FoundFile>,
  damage: PartsDamaged | undefined,
): Promise<SalvageScan> {
  const { log, cipher } = place;
  const partFaults: string[] = [];
  const { store, catalogFault, handle, covered } = await readCatalog(place);
  const files = await readCarriedFiles(place, partFaults);
  const handles = handle === undefined ? await handlesLeft(place, files, partFaults) : new Set([handle]);
  for (const one of handles)
    for (const file of await log.stuckOf(one)) addCarried(files, file, 'a file beside the log', partFaults);
  const parts = partsLeft(log, handles, files, covered);
  const scan = new PartsScan({ log, cipher, store, covered, catalogFault, found, partFaults });
  for await (const { part, plaintext } of commitsIn(place, parts)) scan.take(part, plaintext);
  const endIsUnknown = scan.end(handles, parts, damage);
  const filesMayBeLater = partFaults.length > 0 || handles.size > 1;
  const { lostSeqs, firstSeq, knownRevs, updatedMs, deleted } = scan;
  return {
    store,
    parts,
    catalogFault,
    partFaults,
    lostSeqs,
    filesMayBeLater,
    endIsUnknown,
    firstSeq,
    knownRevs,
    updatedMs,
    deleted,
  };
}

interface ReadCatalog {
  readonly store: LoadedStore;
  readonly catalogFault?: string;
  /** From the catalog, after authentication. */
  readonly handle?: string;
  readonly covered?: Place | undefined;
}

async function readCatalog(place: RemainsPlace): Promise<ReadCatalog> {
  try {
    const snapshot = await loadSnapshot(place);
    if (snapshot === undefined)
      return { store: new LoadedStore(), catalogFault: `${CATALOG_FILE}: the catalog is missing` };
    const { handle, covered } = snapshot.head;
    return { store: snapshot.store, handle, covered };
  } catch (error) {
    if (!(error instanceof CatalogDamaged)) throw error;
    return { store: new LoadedStore(), catalogFault: `${CATALOG_FILE}: ${error.message}` };
  }
}

/** Undamaged files of parts in the project's folder. */
async function readCarriedFiles({ disk, directory }: RemainsPlace, faults: string[]): Promise<CarriedFiles> {
  const files: CarriedFiles = [];
  const folder = join(directory, CARRIED_FOLDER);
  let path = CARRIED_FOLDER;
  try {
    for (const name of (await disk.list(folder)) ?? []) {
      path = join(CARRIED_FOLDER, name);
      const file = await disk.read(join(folder, name), CARRIED_BYTES_MAX);
      if (file !== undefined) addCarried(files, file, path, faults);
    }
  } catch (error) {
    if (!hasCode(error, 'project_damaged')) throw error;
    faults.push(`${path}: is no file of parts that were carried out of the log`);
  }
  return files;
}

type CarriedFiles = ReturnType<typeof decodeCarried>[];

function addCarried(files: CarriedFiles, file: Buffer, name: string, faults: string[]): void {
  try {
    files.push(decodeCarried(file));
  } catch (error) {
    if (!(error instanceof PartsDamaged)) throw error;
    faults.push(`${name}: ${error.message}`);
  }
}

/**
 * The handles of a project without a catalog in the log. They come from the rest of the catalog and from
 * carried files. Other parts are tried: only the project's own ones can be decrypted.
 */
async function handlesLeft(
  { project, directory, disk, cipher, log }: RemainsPlace,
  carried: CarriedFiles,
  faults: string[],
): Promise<Set<string>> {
  const claimed = new Set(carried.map(({ handle }) => handle));
  const start = await readCatalogStart(disk, dirname(directory), project);
  if (start !== undefined && (log.handles.has(start.handle) || log.newest(start.handle) !== undefined))
    claimed.add(start.handle);
  let isAnyUnread = false;
  await using reader = log.reader();
  for (const handle of log.handles) {
    const newest = log.newest(handle);
    const part = newest && (await reader.read(handle, newest));
    isAnyUnread ||= newest !== undefined && part === undefined;
    const parts = part === undefined ? (await log.stuckOf(handle)).flatMap(partsIn) : [part];
    const isOwn = parts.some((one) => opened(one) !== undefined);
    if (isOwn) claimed.add(handle);
  }
  if (claimed.size === 0 && isAnyUnread)
    faults.push('parts in the log are damaged, and may belong to this project');
  return claimed;

  function opened(part: SealedPart): Buffer | undefined {
    if (part.entry.kind === 'gone') return undefined;
    return openIfWhole({ project, cipher, log }, part);
  }
}

function partsIn(file: Buffer): readonly SealedPart[] {
  const files: CarriedFiles = [];
  addCarried(files, file, '', []);
  return files.flatMap(({ parts }) => parts);
}

function partsLeft(
  log: ViewedLog,
  handles: ReadonlySet<string>,
  files: CarriedFiles,
  covered: Place | undefined,
): PartsLeft {
  const own = files.filter(({ handle }) => handles.has(handle));
  const newest = new Map<string, Place>();
  const doubtful = new Set<string>();
  for (const handle of handles) {
    const places = own.filter((file) => file.handle === handle).map((file) => file.newest);
    const inLog = log.newest(handle);
    if (inLog !== undefined) places.push(inLog);
    const last = places.sort(comparePlaces).at(-1);
    if (last !== undefined) newest.set(handle, last);
    const known = [last, covered].filter((place) => place !== undefined).sort(comparePlaces);
    if (log.isDoubtful(handle, known.at(-1))) doubtful.add(handle);
  }
  return { handles, carried: own.flatMap(({ parts }) => parts), newest, doubtful, covered };
}

export interface FoundCommit {
  /** The last part of the commit, or one of its chunks. */
  readonly part: SealedPart;
  /** Undefined for a chunk, and for the end of a commit with missing chunks. */
  readonly plaintext: Buffer | undefined;
}

/** Decrypts every undamaged part in order, and joins the chunks of large commits. */
export async function* commitsIn(place: RemainsPlace, parts: PartsLeft): AsyncGenerator<FoundCommit> {
  const chunks = new Map<string, { readonly place: Place; readonly plaintext: Buffer }[]>();
  for await (const copies of inOrder(place.log.partsOf(parts.handles), parts.carried)) {
    const [part, plaintext] = firstWhole(place, copies);
    if (part === undefined || plaintext === undefined) continue;
    const { handle, kind, chunks: count, previous } = part.entry;
    const newest = parts.newest.get(handle);
    // A crash has torn this frame. Its commits were not acknowledged, and a start has skipped it.
    const isTorn = newest !== undefined && comparePlaces(part.place, newest) > 0;
    if (isTorn && !parts.doubtful.has(handle)) continue;
    const before = chunks.get(handle) ?? [];
    const lastChunk = before.at(-1)?.place;
    const isNext = previous !== undefined && lastChunk !== undefined && isSamePlace(previous, lastChunk);
    const own = isNext ? before : [];
    if (kind === 'chunk') {
      chunks.set(handle, [...own, { place: part.place, plaintext }]);
      yield { part, plaintext: undefined };
      continue;
    }
    chunks.delete(handle);
    if (count > own.length) yield { part, plaintext: undefined };
    else if (count === 0) yield { part, plaintext };
    else
      yield { part, plaintext: Buffer.concat([...own.slice(-count).map((one) => one.plaintext), plaintext]) };
  }
}

function firstWhole(
  place: RemainsPlace,
  copies: readonly SealedPart[],
): readonly [SealedPart, Buffer] | readonly [undefined, undefined] {
  for (const part of copies) {
    const plaintext = openIfWhole(place, part);
    if (plaintext !== undefined) return [part, plaintext];
  }
  return [undefined, undefined];
}

function openIfWhole(
  { project, cipher, log }: Pick<RemainsPlace, 'project' | 'cipher' | 'log'>,
  part: SealedPart,
): Buffer | undefined {
  try {
    return openSealedPart(project, log.storageId, cipher, part);
  } catch (error) {
    if (error instanceof PartsDamaged) return undefined;
    throw error;
  }
}

/** Merges parts of the log with carried ones by place; yields all copies of each place. */
async function* inOrder(
  inLog: AsyncIterable<SealedPart>,
  carried: readonly SealedPart[],
): AsyncGenerator<readonly SealedPart[]> {
  const keyOf = ({ place: { segment, frame }, entry }: SealedPart) => `${segment} ${frame} ${entry.handle}`;
  const copies = Map.groupBy(
    carried.toSorted((a, b) => comparePlaces(a.place, b.place)),
    keyOf,
  );
  for await (const part of inLog) {
    for (const [key, [first]] of copies) {
      if (first === undefined || comparePlaces(first.place, part.place) >= 0) break;
      yield copies.get(key) ?? [];
      copies.delete(key);
    }
    const key = keyOf(part);
    yield [part, ...(copies.get(key) ?? [])];
    copies.delete(key);
  }
  yield* copies.values();
}

/** Decrypts every document file. @returns the undamaged ones by name, and the paths of all others. */
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
      path === documentPath(fileName) &&
      Buffer.isBuffer(sealed) &&
      opened !== undefined &&
      'metadata' in opened
    )
      found.set(fileName, { fileName, metadata: opened.metadata, size: sealed.length });
    else bad.push(path);
  });
  return { found, bad };
}
