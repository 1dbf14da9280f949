import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { CommitNotifier } from '../../commit/commit-notifier.ts';
import { admit } from '../../commit/commit-plan.ts';
import type { IdempotencyRecords } from '../../commit/idempotency-records.ts';
import type { Quota } from '../../commit/quota.ts';
import type { EngineIndexes } from '../../port/index-port.ts';
import {
  type Awaitable,
  type ChangePage,
  type CollectionSummary,
  type CommitOptions,
  type DocumentPage,
  type ListQuery,
  type MovableStore,
  type Position,
  type ProjectStore,
  type Resealed,
  type SealedPage,
  type SealedPageLimits,
  type StoredDocument,
  type StoreMetadata,
  TOMBSTONES_MAX,
  type Write,
  type WriteResult,
} from '../../port/port.ts';
import type { SealBudget, SealLimits } from '../../port/seal-budget.ts';
import type { SnapshotOptions, StoreSnapshot } from '../../port/snapshot-port.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { StoredIndexes } from '../catalog/index-file.ts';
import type { SnapshotHead } from '../catalog/snapshot.ts';
import { LARGE_FILE_BYTES_MAX } from '../disk/disk.ts';
import { readChanges, readSealedChanges } from '../documents/feed-reader.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import { StoreReader, type StoreReaderOptions } from '../documents/store-reader.ts';
import type { Place } from '../log/layout.ts';
import type { AttachedHandle, LogMark, PartSource } from '../log/log-api.ts';
import { KeptMemory } from '../snapshots/kept-memory.ts';
import { type Later, ProjectSnapshots } from '../snapshots/project-snapshots.ts';
import type { CheckpointSource, StoredIndexState } from './checkpoint.ts';
import { CollectionIndexes } from './collection-indexes.ts';
import { CommitQueue } from './commit-queue.ts';
import { type FrameChange, GroupPreparer } from './group-preparer.ts';
import { Resealing } from './resealing.ts';

export interface FileStoreOptions extends StoreReaderOptions {
  readonly clock: Clock;
  /** Bytes of `project.json`. Every snapshot contains a copy. */
  readonly projectFile: Buffer;
  /** Called with a failure after which the store must be reopened. */
  readonly onFailure: (error: unknown) => void;
  /** Called when an index could not be built. */
  readonly onIndexFailure?: (error: unknown) => void;
  /** Called when the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly sealLimits: SealLimits;
  readonly quota?: Quota | undefined;
  /** Tombstones that stay after a checkpoint; {@link TOMBSTONES_MAX} when absent. */
  readonly tombstonesMax?: number | undefined;
  /** {@link CATALOG_BYTES_MAX} when absent. */
  readonly catalogBytesMax?: number | undefined;
  /** Runs the service's own work for the project; unscheduled when absent. */
  readonly ownWork?: OwnWork;
  /** Bounds what snapshots keep, for all projects of the process. */
  readonly keptMemory?: KeptMemory;
  /** Schedules the end of states that are kept for later pages; `setTimeout` by default. */
  readonly retainLater?: Later | undefined;
}

/**
 * Bytes of a project in the log that make its checkpoint due: `least`, or as much as its catalog takes, up to
 * `most`.
 */
export interface CheckpointBytes {
  readonly least: number;
  readonly most: number;
}

/** What the store needs from the engine. */
export interface EnginePort {
  /** Attaches the store to the log. */
  attach(source: PartSource, after: Place | undefined): AttachedHandle;
  /** Takes a checkpoint, or joins a waiting one. */
  checkpoint(store: FileStore): Promise<void>;
  readonly checkpointBytes: CheckpointBytes;
  /** Called when the store has written its last part. */
  closed(store: FileStore): Promise<void>;
}

/** A snapshot is worth writing if it is at most this many times longer than the parts that it covers. */
const SNAPSHOT_WORTH = 16;
/**
 * Bytes of documents and tombstones in a catalog from which on it takes no new documents. The rest of
 * {@link LARGE_FILE_BYTES_MAX} is for idempotency keys, the head, and commits that wait for the log.
 */
const CATALOG_BYTES_MAX = LARGE_FILE_BYTES_MAX - 201_326_592;
/** Approximate bytes of a document in a snapshot. */
const SNAPSHOT_ENTRY_BYTES = 120;

/** The parts of a store, as of the last acknowledged commit. */
export interface FileStoreParts {
  /** Identifies its parts in the log. */
  readonly handle: string;
  readonly catalog: Catalog;
  readonly idempotencyRecords: IdempotencyRecords;
  readonly files: ProjectFiles;
  readonly seals: SealBudget;
  readonly indexes: StoredIndexes | undefined;
  /** The last part in the log; `covered` when there is no later one. */
  readonly last: Place | undefined;
  /** The last part that the catalog covers. */
  readonly covered: Place | undefined;
  /** Key versions that seal the catalog and the parts after it. */
  readonly versions: ReadonlySet<number>;
}

/**
 * The store of a project in files, in the manner of Bitcask. A commit is sealed and goes into the next frame
 * of the log, together with commits of other projects. Once the frame is durable, the commit is published in
 * the catalog and acknowledged. Document files follow in the background. A checkpoint makes them and the
 * catalog durable, so that the log can reuse its segments.
 *
 * One class, because it has the members of its two ports; the reader, the queue of commits, the indexes and
 * the resealing do the work.
 */
export class FileStore implements ProjectStore, CheckpointSource {
  readonly handle: string;
  readonly #options: FileStoreOptions;
  readonly #parts: FileStoreParts;
  readonly #engine: EnginePort;
  readonly #queue: CommitQueue;
  readonly #resealing: Resealing;
  readonly #indexes: CollectionIndexes;
  readonly ownWork: OwnWork;
  readonly #reader: StoreReader;
  readonly #snapshots: ProjectSnapshots;
  readonly #waiters = new CommitNotifier();
  #floor: Position = 0;
  #failed = false;
  #fences = 0;
  #covered: Place | undefined;
  readonly indexState: StoredIndexState;

  constructor(options: FileStoreOptions, parts: FileStoreParts, engine: EnginePort) {
    this.#options = options;
    this.#parts = parts;
    this.#engine = engine;
    this.handle = parts.handle;
    this.#covered = parts.covered;
    const { catalog, files } = parts;
    this.#reader = new StoreReader({ ...options, positionFloor: () => this.#raisedFloor() }, catalog, files);
    this.ownWork = options.ownWork ?? ownWork(options.project);
    this.#indexes = new CollectionIndexes(
      {
        list: (query) => this.list(query),
        revOf: (ref) => catalog.living(ref)?.rev,
        positionOf: (ref) => catalog.get(ref)?.createdSeq,
        seqOf: (ref) => catalog.seqOf(ref),
        changedSince: (seq) => catalog.changes(seq),
        get: async (ref) => this.get(ref),
        whenDecidedIsOver: () => this.#queue.whenDecidedIsOver(),
        countOf: (collection) => catalog.documentsIn(collection),
        changedIn: (collection) => catalog.changedIn(collection),
      },
      parts.indexes,
      (error) => this.#options.onIndexFailure?.(error),
      this.ownWork,
    );
    const { keptMemory: memory = new KeptMemory(), retainLater: later } = options;
    const snapshotted = { catalog, files, reader: this.#reader, indexes: this.#indexes };
    this.#snapshots = new ProjectSnapshots({ ...snapshotted, memory, later });
    this.indexState = { isThere: parts.indexes !== undefined, writtenFrom: undefined };
    const { cipher, clock, quota } = options;
    const position = () => this.#reader.lastSeq;
    files.onFailure = (error) => this.fail(error);
    this.#queue = new CommitQueue({
      ...options,
      ...parts,
      ownWork: this.ownWork,
      preparer: new GroupPreparer({ ...parts, indexes: this.#indexes, cipher, clock, quota, position }),
      attach: (source) => engine.attach(source, parts.last),
      publish: (changes) => this.#publish(changes),
      fail: (error) => this.fail(error),
      onAnswered: () => {
        if (this.#isCheckpointDue) void engine.checkpoint(this).catch(() => undefined);
      },
    });
    this.#resealing = new Resealing({
      catalog,
      queue: this.#queue,
      versions: parts.versions,
      clock,
      get: async (state) => this.get(state),
      checkpoint: () => this.checkpoint(),
      isFenced: () => this.#fences > 0,
    });
  }

  /**
   * The position of the last take-over, once no commit can get an earlier one. Otherwise a reader that
   * continues from here could miss a commit that was planned before the store knew of the take-over.
   */
  #raisedFloor(): Position {
    if (!this.#queue.hasUnpublished) this.#floor = Math.max(this.#floor, this.#options.positionFloor());
    return this.#floor;
  }

  get project(): string {
    return this.#options.project;
  }

  get directory(): string {
    return this.#options.directory;
  }

  get cipher(): FileStoreOptions['cipher'] {
    return this.#options.cipher;
  }

  get files(): ProjectFiles {
    return this.#parts.files;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get indexes(): EngineIndexes {
    return this.#indexes;
  }

  getSync(ref: DocumentRef): StoredDocument | undefined {
    return this.#reader.getSync(ref);
  }

  get(ref: DocumentRef): Awaitable<StoredDocument | undefined> {
    return this.#reader.get(ref);
  }

  /** The store itself. */
  get movable(): MovableStore {
    return this;
  }

  async metadata(): Promise<StoreMetadata> {
    const { catalog, seals, idempotencyRecords } = this.#parts;
    const { lastSeq, purgedSeq } = this.#reader;
    const { size } = catalog;
    return {
      lastSeq,
      purgedSeq,
      size,
      ...catalog.usage,
      seals: seals.durable,
      idempotencyRecords: [...idempotencyRecords],
    };
  }

  async fence(): Promise<Disposable> {
    this.#fences++;
    await this.#queue.whenIdle();
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (!isOver) this.#fences--;
        isOver = true;
      },
    };
  }

  async commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    if (this.#failed) throw new AppError('storage_unavailable');
    if (this.#fences > 0) throw new AppError('project_moving', { retryAfterS: 1 });
    const bytes = admit(writes, this.#queue.load);
    this.#requireRoom(writes);
    if (writes.some(({ kind, ref }) => kind === 'put' && this.#indexes.isHeld(ref.collection)))
      throw new AppError('overloaded', { detail: 'a unique index is being read', retryAfterS: 1 });
    return this.#queue.enqueue({ writes, reseals: [], options, bytes });
  }

  /**
   * Refuses new documents before the catalog becomes too large to be read. Documents that already wait for
   * the log fit above this limit.
   */
  #requireRoom(writes: readonly Write[]): void {
    const { catalog } = this.#parts;
    if (catalog.snapshotBytes <= (this.#options.catalogBytesMax ?? CATALOG_BYTES_MAX)) return;
    if (writes.some(({ kind, ref }) => kind === 'put' && catalog.get(ref) === undefined))
      throw new AppError('quota_exceeded', {
        detail: 'the catalog of the project is full: delete documents, or use another project',
      });
  }

  get memoryBytes(): number {
    const { catalog, files, idempotencyRecords } = this.#parts;
    return (
      catalog.memoryBytes + files.memoryBytes + idempotencyRecords.memoryBytes + this.#indexes.memoryBytes
    );
  }

  get pendingReencryption(): number {
    return this.#resealing.pending;
  }

  reseal(limit: number): Promise<Resealed> {
    return this.#resealing.run(limit);
  }

  list(query: ListQuery): Promise<DocumentPage> {
    return this.#reader.list(query);
  }

  snapshot(collection: string, options?: SnapshotOptions): StoreSnapshot {
    return this.#snapshots.take(collection, options);
  }

  async changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage> {
    return readChanges(this.#reader, after, limit, horizon);
  }

  async position(): Promise<Position> {
    return this.#reader.lastSeq;
  }

  async waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    const { lastSeq } = this.#reader;
    return lastSeq > after ? lastSeq : this.#waiters.wait(after, signal);
  }

  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage> {
    return readSealedChanges(this.#reader, after, limits);
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    return this.#parts.catalog.collections();
  }

  checkpoint(): Promise<void> {
    return this.#engine.checkpoint(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiters.end();
    this.#snapshots.end();
    await this.#queue.whenIdle();
    await this.#indexes.stop();
    await this.#engine.closed(this);
    this.#queue.attached.detach();
    this.#parts.files.onFailure = undefined;
  }

  /**
   * Ends all writing: document files or a checkpoint failed, their content on the disk is unknown, or a
   * durable commit could not be published.
   */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#queue.refuse(new AppError('storage_unavailable', { cause: error }));
    this.#options.onFailure(error);
  }

  // For a checkpoint.

  /** Whether enough durable bytes in the log are not covered by the catalog. */
  get #isCheckpointDue(): boolean {
    if (this.#failed) return false;
    const { least, most } = this.#engine.checkpointBytes;
    const bytes = this.#queue.attached.mark()?.bytes ?? 0;
    // A snapshot writes the whole catalog, so a large one waits for more bytes, but at most for `most`.
    return bytes > least && bytes > Math.min(this.#parts.catalog.size * SNAPSHOT_ENTRY_BYTES, most);
  }

  purge(beforeMs: number): Generator<void, number> {
    return this.#parts.catalog.purge(beforeMs, this.#options.tombstonesMax ?? TOMBSTONES_MAX);
  }

  mark(): LogMark | undefined {
    return this.#queue.attached.mark();
  }

  get covered(): Place | undefined {
    return this.#covered;
  }

  /** The head of a snapshot taken now. @param covered the last part of the log in it. */
  snapshotHead(covered: Place | undefined): SnapshotHead {
    const { catalog, seals, handle } = this.#parts;
    const { lastSeq, purgedSeq } = catalog;
    const { projectFile } = this.#options;
    return { handle, covered, projectFile, lastSeq, purgedSeq, seals: seals.settle() };
  }

  get catalog(): Catalog {
    return this.#parts.catalog;
  }

  get idempotencyRecords(): IdempotencyRecords {
    return this.#parts.idempotencyRecords;
  }

  get wholeIndexes(): CollectionIndexes['whole'] {
    return this.#indexes.whole;
  }

  get indexBuilds(): number {
    return this.#indexes.builds;
  }

  /** Approximate bytes of a snapshot. */
  get snapshotBytes(): number {
    const { catalog, idempotencyRecords } = this.#parts;
    return catalog.size * SNAPSHOT_ENTRY_BYTES + idempotencyRecords.memoryBytes;
  }

  /**
   * Whether a snapshot is worth writing for the project's parts in the log; otherwise carrying them is
   * cheaper.
   */
  get isWorthCheckpoint(): boolean {
    return this.snapshotBytes <= SNAPSHOT_WORTH * (this.#queue.attached.mark()?.bytes ?? 0);
  }

  /** Called when a snapshot that covers the log up to `place` is durable. */
  covers(place: Place | undefined): void {
    this.#covered = place;
    this.#resealing.checkpointed();
  }

  /** Makes durable changes visible. */
  #publish(changes: readonly FrameChange[]): void {
    for (const change of changes) this.#publishOne(change);
    if (changes.length > 0 && !this.#waiters.isEmpty) this.#waiters.committed(this.#parts.catalog.lastSeq);
  }

  /** Makes a durable change visible, and queues its file. */
  #publishOne(change: FrameChange): void {
    const { catalog, idempotencyRecords, files } = this.#parts;
    if (change.kind === 'idempotency record') {
      idempotencyRecords.add(change.used);
      return;
    }
    const { state, fileName, sealed } = change;
    const { cache, project } = this.#options;
    if (this.#snapshots.isShown) this.#snapshots.superseding(state);
    catalog.apply(state);
    if (change.indexing !== undefined && this.#indexes.has(state.collection))
      this.#indexes.apply(state, change.indexing.text, change.indexing.keys);
    if (state.deletedMs === 0) {
      files.put(fileName, sealed);
      cache.update(project, fileName, sealed);
    } else {
      files.remove(fileName);
      cache.delete(project, fileName);
    }
  }
}
