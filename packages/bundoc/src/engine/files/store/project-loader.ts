import { join } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { inSteps } from '../../../work/in-steps.ts';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { IdempotencyRecords } from '../../commit/idempotency-records.ts';
import type { SealCount } from '../../port/seal-budget.ts';
import { readRecords } from '../../port/state.ts';
import { Catalog } from '../catalog/catalog.ts';
import { openCatalog, readCatalog } from '../catalog/catalog-file.ts';
import { INDEX_FILE } from '../catalog/index-file.ts';
import { CatalogDamaged, type SnapshotHead, type SnapshotSink } from '../catalog/snapshot.ts';
import type { Disk } from '../disk/disk.ts';
import { decodeCarried } from '../log/carried-file.ts';
import { comparePlaces, type FramePlace, type Place } from '../log/layout.ts';
import { lastCarried, nameOfPlace, openParts, type PartReader, partsBehind } from '../log/parts.ts';
import { PartsDamaged, type SealedPart } from '../log/sealed-part.ts';

export { PartsDamaged };

/** The folder in a project's folder for parts that were carried from the log. */
export const CARRIED_FOLDER = 'carried';
/** Maximum size of a carried file. A segment has 16 MiB, and what is carried from it hardly more. */
export const CARRIED_BYTES_MAX = 33_554_432;

/** Records that are replayed before other work gets its turn. */
const STEP_RECORDS = 512;

/** The log as the store of a project reads it: that of the running engine, or a read-only view. */
export interface LogOfProjects {
  readonly storageId: Buffer;
  newest(handle: string): Place | undefined;
  isDoubtful(handle: string, covered: FramePlace | undefined): boolean;
  /** The oldest live segment. */
  readonly firstLive: number;
  reader(): PartReader;
  /** Whether parts of a handle were carried into its project's folder since the log was opened. */
  hasCarried(handle: string): boolean;
  /**
   * Carried files of a handle in the folder of the log, where they are after the project's folder has failed.
   */
  stuckOf(handle: string): Promise<readonly Buffer[]>;
}

/** The location of a project's store, and what opens it. */
export interface StorePlace {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  readonly disk: Disk;
  readonly cipher: ProjectCipher;
  readonly log: LogOfProjects;
  /** Names in the folder, if the caller has just listed it. */
  readonly entries?: readonly string[] | undefined;
  /** Runs the service's own work for the project; unscheduled when absent. */
  readonly ownWork?: OwnWork;
}

/** The state of a store in memory: its catalog, updated by the replayed parts. */
export class LoadedStore {
  readonly catalog = new Catalog();
  readonly idempotencyRecords = new IdempotencyRecords();
  /** Durable counts of seals by key version; the highest of each version counts. */
  readonly sealCounts: SealCount[] = [];
  /** The latest content of each document file in the log; undefined for a deleted document. */
  readonly sealedByFile = new Map<string, Buffer | undefined>();

  /** Applies the records of one part, in steps. Sealed bytes are views of it. */
  *replay(plaintext: Buffer): Generator<void> {
    let records = 0;
    for (const record of readRecords(plaintext)) {
      if (++records % STEP_RECORDS === 0) yield;
      if (record.kind === 'idempotency record') this.idempotencyRecords.add(record.used);
      if (record.kind === 'seals') this.sealCounts.push(record.seals);
      if (record.kind !== 'document') continue;
      const { state, sealed } = record;
      this.catalog.apply(state);
      this.sealedByFile.set(state.fileName.toString('hex'), state.deletedMs === 0 ? sealed : undefined);
    }
  }
}

/**
 * Reads the catalog without changing the disk.
 *
 * @returns undefined when there is none.
 * @throws CatalogDamaged when it is undecryptable.
 */
export async function loadSnapshot({
  project,
  directory,
  disk,
  cipher,
  ownWork: own = ownWork(project),
}: Omit<StorePlace, 'log'>): Promise<
  { readonly store: LoadedStore; readonly head: SnapshotHead; readonly keyVersion: number } | undefined
> {
  using file = await openCatalog(disk, directory);
  if (file === undefined) return undefined;
  const store = new LoadedStore();
  const sink: SnapshotSink = {
    state: (state) => store.catalog.apply(state),
    idempotencyRecord: (used) => store.idempotencyRecords.add(used),
  };
  const { head, keyVersion } = await readCatalog(project, cipher, file, sink, own);
  store.sealCounts.push(...head.seals);
  store.catalog.restore(Math.max(head.lastSeq, store.catalog.lastSeq), head.purgedSeq);
  return { store, head, keyVersion };
}

/** A store as of its last acknowledged commit. */
export interface LoadedFolder {
  readonly store: LoadedStore;
  readonly handle: string;
  /** The copy of `project.json` in the catalog. */
  readonly projectFile: Buffer;
  /** The last part that the catalog covers. */
  readonly covered: Place | undefined;
  /** The last part; `covered` when there is no later one. */
  readonly last: Place | undefined;
  /** Key versions that seal the catalog and the parts after it. */
  readonly versions: ReadonlySet<number>;
  /** Carried files, in the project's folder and in the folder of the log. */
  readonly carriedFiles: number;
  /** Whether the folder has a file of indexes. */
  readonly hasIndexes: boolean;
  /** Sealed bytes of the replayed parts. */
  readonly logBytes: number;
}

/**
 * Reads a store: the snapshot of the catalog, then the later parts of the log. Does not change the disk.
 *
 * @throws CatalogDamaged, PartsDamaged.
 */
export async function loadProject(place: StorePlace): Promise<LoadedFolder> {
  const { project, log } = place;
  // Comes first, so that parts which are carried during the read stay readable in the log.
  await using reader = log.reader();
  // One listing: opening a file that does not exist costs more.
  const names = place.entries ?? (await place.disk.list(place.directory)) ?? [];
  const snapshot = names.includes(CATALOG_FILE) ? await loadSnapshot(place) : undefined;
  const mayHaveCarried = names.includes(CARRIED_FOLDER);
  if (snapshot === undefined) throw new CatalogDamaged('the catalog is missing');
  const { store, keyVersion } = snapshot;
  const { handle, covered, projectFile } = snapshot.head;
  const versions = new Set([keyVersion]);
  const wanted = { reader, handle, covered, mayHaveCarried };
  using work = (place.ownWork ?? ownWork(project))('snapshot');
  const { last, bytes, carriedFiles } = await replayParts(place, wanted, async (part) => {
    if (part.kind !== 'gone') versions.add(part.keyVersion);
    await inSteps(store.replay(part.plaintext), work);
  });
  const hasIndexes = names.includes(INDEX_FILE);
  return { store, handle, projectFile, covered, last, versions, carriedFiles, hasIndexes, logBytes: bytes };
}

/** Which parts of a project to replay. */
export interface PartsOfProject {
  readonly handle: string;
  readonly covered: Place | undefined;
  /** Opened before the folder was listed. */
  readonly reader: PartReader;
  /** Whether the folder had carried files when it was listed. */
  readonly mayHaveCarried: boolean;
}

interface ReplayedPart {
  readonly kind: 'data' | 'gone';
  readonly keyVersion: number;
  readonly plaintext: Buffer;
}

interface Replayed {
  readonly last: Place | undefined;
  readonly bytes: number;
  readonly carriedFiles: number;
}

/** Replays each part after the covered one, in order. @throws PartsDamaged. */
export async function replayParts(
  { project, directory, disk, log, cipher }: StorePlace,
  { handle, covered, reader, mayHaveCarried }: PartsOfProject,
  onPart: (part: ReplayedPart) => Promise<void>,
): Promise<Replayed> {
  // Synchronous, and before the carried files are read: by then a part is either in the log or in one of
  // them.
  const newest = log.newest(handle);
  const isCarried = mayHaveCarried || log.hasCarried(handle);
  const carried = isCarried ? await readCarried(disk, directory) : [];
  const beside = [...carried, ...(await log.stuckOf(handle))];
  requireOwn(log.storageId, handle, beside);
  const known = [covered, lastCarried(handle, beside)].filter((place) => place !== undefined);
  const elsewhere = known.sort(comparePlaces).at(-1);
  if (log.isDoubtful(handle, elsewhere))
    throw new PartsDamaged('frames of the log are lost, and nothing later is known of the project');
  let last = covered;
  let bytes = 0;
  // The log remembers the last part of every project, and each arrival of a project leaves one. An older
  // folder has a handle that has ended, or none of the later parts.
  if (newest === undefined)
    throw new PartsDamaged(
      elsewhere === undefined
        ? 'the log does not know the project in this folder'
        : `${nameOfPlace(elsewhere)}: the log has nothing of the project there`,
    );
  let keyVersion = 0;
  const wanted = { handle, newest, covered, carried: beside };
  const sealed = noting(partsBehind(reader, wanted), (part) => {
    keyVersion = part.entry.keyVersion;
    last = part.place;
    bytes += part.body.length;
  });
  for await (const part of openParts(project, log.storageId, cipher, sealed)) {
    if (part.kind === 'gone') throw new PartsDamaged('the log says that the project is gone');
    await onPart({ kind: part.kind, keyVersion, plaintext: part.plaintext });
  }
  return { last, bytes, carriedFiles: beside.length };
}

/** The folder is a copy from another data folder, so its places mean nothing in this log. Nothing is lost. */
export class FolderCopied extends PartsDamaged {}

function requireOwn(storageId: Buffer, handle: string, carried: readonly Buffer[]): void {
  for (const file of carried) {
    const found = decodeCarried(file);
    if (found.handle === handle && !found.storageId.equals(storageId))
      throw new FolderCopied('the folder is a copy out of another data folder: repair takes it in');
  }
}

async function* noting(
  parts: AsyncIterable<SealedPart>,
  note: (part: SealedPart) => void,
): AsyncGenerator<SealedPart> {
  for await (const part of parts) {
    note(part);
    yield part;
  }
}

/** The handle of a carried file; undefined for a damaged file. */
export function handleIn(file: Buffer): string | undefined {
  try {
    return decodeCarried(file).handle;
  } catch (error) {
    if (error instanceof PartsDamaged) return undefined;
    throw error;
  }
}

/** The carried files in a project's folder. */
export async function readCarried(disk: Pick<Disk, 'list' | 'read'>, directory: string): Promise<Buffer[]> {
  const folder = join(directory, CARRIED_FOLDER);
  const files: Buffer[] = [];
  for (const name of (await disk.list(folder)) ?? []) {
    const file = await disk.read(join(folder, name), CARRIED_BYTES_MAX);
    if (file !== undefined) files.push(file);
  }
  return files;
}
