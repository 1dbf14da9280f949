import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { inSteps } from '../../../work/in-steps.ts';
import type { OwnWork } from '../../../work/work.ts';
import type { IdempotencyRecords } from '../../commit/idempotency-records.ts';
import type { MemoryIndex } from '../../indexes/memory-index.ts';
import { TOMBSTONE_TTL_MS } from '../../port/port.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { encodeIndexes, INDEX_FILE } from '../catalog/index-file.ts';
import { encodeSnapshot, type SnapshotHead } from '../catalog/snapshot.ts';
import { AT_ONCE, type Disk, replaceFile } from '../disk/disk.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import { isSamePlace, type Place } from '../log/layout.ts';
import type { LogMark } from '../log/log-api.ts';

/** The state of the file of indexes. */
export interface StoredIndexState {
  /** Whether the file exists. */
  isThere: boolean;
  /** The state that it was written from: position, key version and number of index builds. */
  writtenFrom: string | undefined;
}

/** The interface of an open project to a checkpoint. */
export interface CheckpointSource {
  readonly project: string;
  readonly directory: string;
  readonly handle: string;
  readonly cipher: ProjectCipher;
  readonly files: ProjectFiles;
  readonly catalog: Catalog;
  readonly idempotencyRecords: IdempotencyRecords;
  readonly failed: boolean;
  /** Runs the service's own work for the project. */
  readonly ownWork: OwnWork;
  /** All indexes; undefined while some are being built. */
  readonly wholeIndexes: readonly (readonly [string, MemoryIndex])[] | undefined;
  readonly indexBuilds: number;
  readonly indexState: StoredIndexState;
  /** The last part of the log that the catalog on disk covers. */
  readonly covered: Place | undefined;
  /** Forgets tombstones from before a time, and those beyond the maximum, in steps. @returns how many. */
  purge(beforeMs: number): Generator<void, number>;
  /** The last part of the log that the catalog in memory includes. */
  mark(): LogMark | undefined;
  snapshotHead(covered: Place | undefined): SnapshotHead;
  covers(place: Place | undefined): void;
  fail(error: unknown): void;
}

export interface CheckpointDeps {
  readonly disk: Disk;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly clock: Clock;
  /**
   * Rewrites every document file that the log still has, because a failed sync leaves their content unknown.
   */
  readonly writeAgain: (source: CheckpointSource) => Promise<void>;
  /** Called when the snapshot is durable. */
  readonly done: (source: CheckpointSource, mark: LogMark | undefined) => Promise<void>;
}

/** Snapshots with more states than this are written one at a time, to bound memory. */
const SMALL_SIZE_MAX = 4_096;

interface Step {
  readonly source: CheckpointSource;
  readonly mark: LogMark | undefined;
  readonly covered: Place | undefined;
  readonly snapshot: AsyncGenerator<Buffer>;
  readonly lastSeq: number;
}

/**
 * Makes the document files and the catalogs of projects durable, so that the log need not keep their parts.
 * First come the files, then a snapshot that names the last part it covers. Small projects share their syncs.
 * Commits may continue; they follow the marks.
 *
 * @param force writes a snapshot even if nothing has changed.
 * @returns for each project undefined, or the failure.
 */
export async function checkpointStores(
  sources: readonly CheckpointSource[],
  ports: CheckpointDeps,
  force = false,
): Promise<readonly unknown[]> {
  const failures = new Map<CheckpointSource, unknown>();
  const failed = (source: CheckpointSource, error: unknown) => {
    failures.set(source, error);
    // The catalog on disk and the log are whole, and deletions make room.
    if (!hasCode(error, 'disk_full') && !hasCode(error, 'quota_exceeded')) source.fail(error);
  };
  const steps: Step[] = [];
  for (const source of sources) {
    if (source.failed) failures.set(source, new AppError('storage_unavailable'));
    else {
      const purged = await purge(source, ports.clock);
      const step = begin(source, force || purged > 0);
      if (step !== undefined) steps.push(step);
    }
  }
  // Failed stores are skipped: their next opening recovers them.
  const isLeft = ({ source }: Step) => !failures.has(source) && !source.failed;
  await syncDocuments(steps, ports, failed);
  const small = steps.filter((step) => isLeft(step) && step.source.catalog.size <= SMALL_SIZE_MAX);
  if (small.length > 1) await replaceTogether(small, ports, failed);
  for (const step of steps) {
    if (!isLeft(step) || (small.length > 1 && small.includes(step))) continue;
    const path = join(step.source.directory, CATALOG_FILE);
    await replaceFile(ports.disk, ports.tmp, path, step.snapshot).catch((error: unknown) =>
      failed(step.source, error),
    );
  }
  for (const step of steps) {
    if (!isLeft(step)) continue;
    step.source.covers(step.covered);
    await ports.done(step.source, step.mark).catch((error: unknown) => failed(step.source, error));
  }
  for (const source of sources)
    if (!failures.has(source) && !source.failed)
      await storeIndexes(source, ports).catch((error: unknown) => failed(source, error));
  return sources.map(
    (source) => failures.get(source) ?? (source.failed ? new AppError('storage_unavailable') : undefined),
  );
}

/**
 * Forgets tombstones before the snapshot is begun, and never while it is written: a snapshot that lacks some
 * must say so in its head.
 */
async function purge(source: CheckpointSource, clock: Clock): Promise<number> {
  using work = source.ownWork('snapshot');
  return await inSteps(source.purge(clock.now() - TOMBSTONE_TTL_MS), work);
}

/**
 * Takes mark and snapshot synchronously, so that they match.
 *
 * @returns undefined when there is nothing to write.
 */
function begin(source: CheckpointSource, force: boolean): Step | undefined {
  const mark = source.mark();
  const before = source.covered;
  const isCovered = mark === undefined || (before !== undefined && isSamePlace(before, mark.place));
  if (isCovered && !force) return undefined;
  const covered = mark?.place ?? before;
  const head = source.snapshotHead(covered);
  const { project, cipher, idempotencyRecords, catalog, ownWork } = source;
  const snapshot = encodeSnapshot(project, cipher, head, idempotencyRecords, catalog, ownWork);
  return { source, mark, covered, snapshot, lastSeq: head.lastSeq };
}

type Failed = (source: CheckpointSource, error: unknown) => void;

/** Syncs document files, and the folders that are new. */
async function syncDocuments(steps: readonly Step[], ports: CheckpointDeps, failed: Failed): Promise<void> {
  const { disk, writeAgain } = ports;
  const written: {
    readonly source: CheckpointSource;
    readonly paths: string[];
    readonly folders: string[];
  }[] = [];
  await Promise.all(
    steps.map(async ({ source }) => {
      try {
        await source.files.whenWritten();
        const paths = source.files.takeUnsynced();
        // The folder of the documents may be new, and must be durable before the catalog.
        written.push({ source, paths, folders: paths.length > 0 ? [source.directory] : [] });
      } catch (error) {
        failed(source, error);
      }
    }),
  );
  const sync = async (of: typeof written): Promise<void> => {
    const paths = of.flatMap((one) => one.paths);
    const folders = new Set(of.flatMap((one) => one.folders));
    if (paths.length > 0 || folders.size > 0) await disk.syncFiles(paths, [...folders]);
  };
  try {
    await sync(written);
  } catch {
    // Each project separately, and with rewritten files: the kernel marks pages as clean even when their sync
    // failed.
    for (const one of written)
      try {
        await writeAgain(one.source);
        await one.source.files.whenWritten();
        await sync([{ ...one, paths: [...one.paths, ...one.source.files.takeUnsynced()] }]);
      } catch (error) {
        // Even on a full disk, because the content of the files is unknown.
        failed(one.source, new AppError('storage_unavailable', { cause: error }));
      }
  }
}

async function concat(pieces: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

/** Replaces small catalogs, with a few syncs in total. */
async function replaceTogether(steps: readonly Step[], ports: CheckpointDeps, failed: Failed): Promise<void> {
  const { disk, tmp } = ports;
  const files: { readonly step: Step; readonly path: string; readonly content: Buffer }[] = [];
  await forEachConcurrently(steps, AT_ONCE, async (step) => {
    const path = join(tmp, randomBytes(12).toString('hex'));
    files.push({ step, path, content: await concat(step.snapshot) });
  });
  const temporary = new Set(files.map(({ path }) => path));
  const placed: string[] = [];
  try {
    const outcomes = await disk.writeFiles(files.map(({ path, content }) => ({ path, content })));
    const whole = files.filter(({ step: { source } }, at) => {
      if (outcomes[at] !== undefined) failed(source, outcomes[at]);
      return outcomes[at] === undefined;
    });
    await disk.syncFiles(whole.map(({ path }) => path));
    await forEachConcurrently(whole, AT_ONCE, async ({ step, path }) => {
      const to = join(step.source.directory, CATALOG_FILE);
      try {
        await disk.rename(path, to);
        temporary.delete(path);
        placed.push(to);
      } catch (error) {
        failed(step.source, error);
      }
    });
    await disk.syncFiles(placed);
  } catch {
    // It is unknown which of them are durable, so each is replaced separately.
    for (const { step, content } of files) {
      const to = join(step.source.directory, CATALOG_FILE);
      await replaceFile(disk, tmp, to, content).catch((error: unknown) => failed(step.source, error));
    }
  } finally {
    for (const path of temporary) await disk.remove(path).catch(() => false);
  }
}

/**
 * Stores the indexes, so that the next opening need not read all documents. While some are being built, the
 * earlier file stays valid for its own position. A full disk is not a failure: the file only saves time.
 */
async function storeIndexes(source: CheckpointSource, { disk, tmp }: CheckpointDeps): Promise<void> {
  const { directory, cipher, project, wholeIndexes: whole, indexState, catalog, ownWork } = source;
  if (whole === undefined) return;
  const path = join(directory, INDEX_FILE);
  const { lastSeq } = catalog;
  const state = `${lastSeq} ${cipher.version} ${source.indexBuilds}`;
  if (state === indexState.writtenFrom) return;
  if (whole.length > 0)
    try {
      await replaceFile(disk, tmp, path, encodeIndexes(project, cipher, lastSeq, whole, ownWork));
    } catch (error) {
      if (!hasCode(error, 'disk_full')) throw error;
      return;
    }
  else if (indexState.isThere) await disk.remove(path);
  indexState.isThere = whole.length > 0;
  indexState.writtenFrom = state;
}
