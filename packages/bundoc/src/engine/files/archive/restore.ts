import { FilesystemSync } from '../disk/filesystem-sync.ts';
import { comparePlaces } from '../log/layout.ts';
import { SEGMENT_BYTES } from '../log/log-api.ts';
import { type ArchiveReader, type Chain, firstOf, idIn } from './lineage.ts';
import { ArchiveDamaged, type ArchiveRecord, type ObjectHead, type RoundPlace } from './object.ts';
import { RestoredFolder, syncTree } from './restored-folder.ts';

/** No moment up to the asked one can be restored. */
export class NothingToRestore extends Error {
  override readonly name = 'NothingToRestore';
}

/** What a restore is going to read. */
export interface RestorePlan {
  readonly chain: Chain;
  /** The last object, whose time is the moment that is restored. */
  readonly last: ObjectHead;
  readonly round: RoundPlace;
  /** Number of objects. */
  readonly objects: number;
  /** The last object of a newer chain, which has no complete round up to the moment; undefined for none. */
  readonly newer: ObjectHead | undefined;
}

/**
 * Finds the newest complete moment.
 *
 * @param atMs not later than this, milliseconds since 1970; the newest of all when undefined.
 * @throws NothingToRestore; ArchiveDamaged when an object that is needed is missing; ObjectStorageError.
 */
export async function planRestore(
  reader: ArchiveReader,
  atMs = Number.POSITIVE_INFINITY,
): Promise<RestorePlan> {
  let prunedMs = Number.POSITIVE_INFINITY;
  let newer: ObjectHead | undefined;
  for (const chain of await reader.chains()) {
    // It went on beside what a newer chain has lost, with other content.
    if (chain.tip.timeMs > prunedMs) continue;
    const last = await lastUpTo(reader, chain, atMs);
    const round = last?.round;
    if (isBeforePruned(chain, last)) {
      if (last !== undefined) break;
      prunedMs = Math.min(prunedMs, (await headIn(reader, chain, firstOf(chain))).timeMs);
      continue;
    }
    if (last === undefined) continue;
    if (round === undefined) {
      newer ??= last;
      continue;
    }
    const missing = chain.missing.filter((n) => n >= round.first && n <= last.n);
    if (missing.length > 0) throw new ArchiveDamaged(`these objects are missing: ${missing.join(', ')}`);
    const first = firstOf(chain);
    if (round.first < first || round.endedIn > last.n)
      throw new ArchiveDamaged(
        `the newest chain lacks objects before object ${first}, and needs those from ${round.first} on`,
      );
    return { chain, last, round, objects: last.n - round.first + 1, newer };
  }
  throw new NothingToRestore(
    atMs === Number.POSITIVE_INFINITY
      ? 'the archive has no complete round yet'
      : `the archive has no complete round up to ${new Date(atMs).toISOString()}`,
  );
}

/** Whether the chain had the moment, and what its restore needs was pruned. */
function isBeforePruned(chain: Chain, last: ObjectHead | undefined): boolean {
  const first = firstOf(chain);
  if (!chain.isPruned || (chain.tip.round?.first ?? 0) < first) return false;
  return last === undefined || (last.round?.first ?? 0) < first;
}

/**
 * The last object that can be read and is not later; undefined when there is none. A moment before an object
 * that is missing or damaged needs nothing of it.
 *
 * @throws ObjectStorageError.
 */
export async function lastUpTo(
  reader: ArchiveReader,
  chain: Chain,
  atMs: number,
): Promise<ObjectHead | undefined> {
  if (chain.tip.timeMs <= atMs) return chain.tip;
  let below = firstOf(chain);
  let found = await readableHead(reader, chain, below);
  if (found !== undefined && found.timeMs > atMs) return undefined;
  let above = chain.tip.n;
  while (above - below > 1) {
    const middle = Math.floor((below + above) / 2);
    let n = middle;
    let head = await readableHead(reader, chain, n);
    while (head === undefined && n > below + 1) head = await readableHead(reader, chain, --n);
    if (head === undefined) below = middle;
    else if (head.timeMs > atMs) above = n;
    else [below, found] = [middle, head];
  }
  return found;
}

/** Undefined when the object is missing or damaged. @throws ObjectStorageError. */
export async function readableHead(
  reader: ArchiveReader,
  chain: Chain,
  n: number,
): Promise<ObjectHead | undefined> {
  try {
    return await headIn(reader, chain, n);
  } catch (error) {
    if (error instanceof ArchiveDamaged) return undefined;
    throw error;
  }
}

/** @throws ArchiveDamaged when the object is missing; ObjectStorageError. */
export async function headIn(reader: ArchiveReader, chain: Chain, n: number): Promise<ObjectHead> {
  const id = idIn(chain, n);
  if (id === undefined) throw new ArchiveDamaged(`object ${n} is missing`);
  return await reader.head(id);
}

export interface Restored {
  readonly projects: number;
  readonly bytes: number;
  /** Projects that had just arrived: the archive has their first commits, and not their folders. */
  readonly unfinished: readonly string[];
}

export interface MomentOptions {
  /** Called after each object, with the bytes that were read. */
  readonly onProgress?: (objects: number, bytes: number) => void;
  /** The only project that gets a folder. */
  readonly only?: string | undefined;
  /** Length of a segment of the log; a test has shorter ones. */
  readonly segmentBytes?: number;
}

/**
 * Writes the data folder of a moment, durably. It needs no key.
 *
 * @param to an empty folder. After an error it is incomplete, and Bundoc does not start on it.
 * @throws ArchiveDamaged; ObjectStorageError; the system's errors of `to`.
 */
export async function restoreArchive(
  reader: ArchiveReader,
  { chain, last, round }: RestorePlan,
  to: string,
  { onProgress, only, segmentBytes = SEGMENT_BYTES }: MomentOptions = {},
): Promise<Restored> {
  const folder = new RestoredFolder(to, segmentBytes);
  const restore = new Restore(folder, last, round);
  let objects = 0;
  let bytes = 0;
  for await (const object of reader.objects(chain, round.first, last.n)) {
    for (const record of object.records())
      if (only === undefined || !('project' in record) || record.project === only)
        await restore.take(record, object.head);
      // The files that follow the base are not those of the one before.
      else if (record.kind === 'base') await restore.skipBase();
    bytes += object.bytes;
    onProgress?.(++objects, bytes);
  }
  const filesystem = new FilesystemSync();
  await folder.finish(last.storageId, round.segment, async (directory) => {
    if (!(await filesystem.sync(directory))) await syncTree(directory);
  });
  return { projects: restore.projects.size, bytes, unfinished: [...restore.unfinished] };
}

/** Applies records in order. */
class Restore {
  readonly #folder: RestoredFolder;
  readonly #last: ObjectHead;
  readonly #round: RoundPlace;
  readonly projects = new Set<string>();
  readonly unfinished = new Set<string>();
  /** The project of the base in progress. */
  #base: string | undefined;
  /** Whether the current segment is part of the restored log. */
  #isInLog = false;

  constructor(folder: RestoredFolder, last: ObjectHead, round: RoundPlace) {
    this.#folder = folder;
    this.#last = last;
    this.#round = round;
  }

  /** @param head of the object of the record. */
  async take(record: ArchiveRecord, head: ObjectHead): Promise<void> {
    const { segment } = this.#round;
    switch (record.kind) {
      case 'segment':
        this.#isInLog = record.number >= segment;
        return this.#isInLog ? this.#folder.beginSegment(record, segment) : undefined;
      case 'frame':
        return this.#isInLog ? this.#folder.addFrame(record.block, record.bytes) : undefined;
      case 'base':
        this.#base = record.project;
        return this.#folder.beginBase(record.project);
      case 'file':
        return this.#base === undefined
          ? undefined
          : this.#folder.addFile(record.name, record.offset, record.bytes);
      case 'end':
        return this.#endBase(head);
      case 'small files':
        return this.#folder.putSmallFiles(record.project, record.files);
      case 'gone':
        this.projects.delete(record.project);
        this.unfinished.delete(record.project);
        if (this.#base === record.project) this.#base = undefined;
        return this.#folder.removeProject(record.project);
      case 'storage file':
        return this.#folder.setStorageFile(record.bytes);
      case 'round ends':
        return undefined;
    }
  }

  async skipBase(): Promise<void> {
    this.#base = undefined;
    await this.#folder.dropBase();
  }

  /** A base that may have more than the log up to the moment is left out. */
  async #endBase({ log }: ObjectHead): Promise<void> {
    const project = this.#base;
    if (project === undefined) return;
    this.#base = undefined;
    const { end } = this.#last;
    if (end === undefined || comparePlaces(log, end) > 0) {
      if (!this.projects.has(project)) this.unfinished.add(project);
      return this.#folder.dropBase();
    }
    await this.#folder.placeBase();
    this.projects.add(project);
    this.unfinished.delete(project);
  }
}
