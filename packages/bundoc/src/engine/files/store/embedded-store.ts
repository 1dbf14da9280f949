import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { CommitNotifier } from '../../commit-notifier.ts';
import { admit } from '../../commit-plan.ts';
import type { IdempotencyRecords } from '../../idempotency-records.ts';
import type { EngineIndexes } from '../../index-port.ts';
import type {
  Awaitable,
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListQuery,
  MovableStore,
  Position,
  ProjectStore,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
  StoreMetadata,
  Write,
  WriteResult,
} from '../../port.ts';
import type { Quota } from '../../quota.ts';
import type { SealBudget, SealLimits } from '../../seal-budget.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { StoredIndexes } from '../catalog/index-file.ts';
import type { SnapshotHead } from '../catalog/snapshot.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import type { Place } from '../log/layout.ts';
import type { AttachedHandle, LogMark, PartSource } from '../log/log-api.ts';
import type { CheckpointSource, StoredIndexState } from './checkpoint.ts';
import { CollectionIndexes } from './collection-indexes.ts';
import { CommitQueue } from './commit-queue.ts';
import { type FrameChange, GroupPreparer } from './group-preparer.ts';
import { Resealing } from './resealing.ts';
import { StoreReader, type StoreReaderOptions } from './store-reader.ts';

export interface EmbeddedStoreOptions extends StoreReaderOptions {
  readonly clock: Clock;
  /** Bytes of `project.json`. Every snapshot keeps a copy. */
  readonly projectFile: Buffer;
  /** Called with a failure after which the store must be opened again. */
  readonly onFailure: (error: unknown) => void;
  /** Called when an index could not be built. */
  readonly onIndexFailure?: (error: unknown) => void;
  /** Called when the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly sealLimits: SealLimits;
  readonly quota?: Quota | undefined;
  /** Work of the service itself for the project; by itself when it is absent. */
  readonly ownWork?: OwnWork;
}

/**
 * Bytes of a project in the log from which on its checkpoint is due: `least`, or, while its catalog is
 * longer, up to `most`.
 */
export interface CheckpointBytes {
  readonly least: number;
  readonly most: number;
}

/** What the store needs from the engine. */
export interface EnginePort {
  /** Attaches the store to the log. */
  attach(source: PartSource, after: Place | undefined): AttachedHandle;
  /** Makes a checkpoint, or waits for the one that is under way. */
  checkpoint(store: EmbeddedStore): Promise<void>;
  readonly checkpointBytes: CheckpointBytes;
  /** Called when the store has written its last part. */
  closed(store: EmbeddedStore): Promise<void>;
}

/** A snapshot that is so many times longer than the parts that it covers is not worth writing. */
const SNAPSHOT_WORTH = 16;
/** Bytes of a document in a snapshot, about. */
const SNAPSHOT_ENTRY_BYTES = 120;

/** The parts of a store, as of the last acknowledged commit. */
export interface EmbeddedParts {
  /** Identifies its parts in the log. */
  readonly handle: string;
  readonly catalog: Catalog;
  readonly idempotencyRecords: IdempotencyRecords;
  readonly files: ProjectFiles;
  readonly seals: SealBudget;
  readonly indexes: StoredIndexes | undefined;
  /** The last part in the log; `covered` when there is none behind it. */
  readonly last: Place | undefined;
  /** The last part that the catalog covers. */
  readonly covered: Place | undefined;
  /** Key versions that the catalog and the parts behind it are sealed under. */
  readonly versions: ReadonlySet<number>;
}

/**
 * The store of a project in files, in the manner of Bitcask. A commit is sealed and goes into the next frame
 * of the log, together with commits of other projects. Once the frame is durable, the commit is published in
 * the catalog and acknowledged. Document files follow in the background. A checkpoint makes them and the
 * catalog durable, so that the log can use its segments again.
 *
 * One class, because it has the members of its two ports; the reader, the queue of commits, the indexes and
 * the resealing do the work.
 */
export class EmbeddedStore implements ProjectStore, CheckpointSource {
  readonly handle: string;
  readonly #options: EmbeddedStoreOptions;
  readonly #parts: EmbeddedParts;
  readonly #engine: EnginePort;
  readonly #queue: CommitQueue;
  readonly #resealing: Resealing;
  readonly #indexes: CollectionIndexes;
  readonly ownWork: OwnWork;
  readonly #reader: StoreReader;
  readonly #waiters = new CommitNotifier();
  #failed = false;
  #fences = 0;
  #covered: Place | undefined;
  readonly indexState: StoredIndexState;

  constructor(options: EmbeddedStoreOptions, parts: EmbeddedParts, engine: EnginePort) {
    this.#options = options;
    this.#parts = parts;
    this.#engine = engine;
    this.handle = parts.handle;
    this.#covered = parts.covered;
    const { catalog, files } = parts;
    this.#reader = new StoreReader(options, catalog, files);
    this.ownWork = options.ownWork ?? ownWork(options.project);
    this.#indexes = new CollectionIndexes(
      {
        list: (query) => this.list(query),
        revOf: (ref) => catalog.living(ref)?.rev,
        positionOf: (ref) => catalog.get(ref)?.createdSeq,
        seqOf: (ref) => catalog.living(ref)?.seq,
        changedSince: (seq) => catalog.changes(seq),
        get: async (ref) => this.get(ref),
        whenDecidedIsOver: () => this.#queue.whenDecidedIsOver(),
        countOf: (collection) =>
          catalog.collections().find(({ name }) => name === collection)?.documents ?? 0,
      },
      parts.indexes,
      (error) => this.#options.onIndexFailure?.(error),
      this.ownWork,
    );
    this.indexState = { isThere: parts.indexes !== undefined, writtenFrom: undefined };
    const { cipher, clock, quota } = options;
    files.onFailure = (error) => this.fail(error);
    this.#queue = new CommitQueue({
      ...{ ...options, ...parts, ownWork: this.ownWork },
      preparer: new GroupPreparer({ ...parts, indexes: this.#indexes, cipher, clock, quota }),
      attach: (source) => engine.attach(source, parts.last),
      publish: (changes) => this.#publish(changes),
      onAnswered: () => {
        if (this.#isCheckpointDue) void engine.checkpoint(this).catch(() => undefined);
      },
    });
    this.#resealing = new Resealing({
      ...{ catalog, queue: this.#queue, versions: parts.versions },
      get: async (state) => this.get(state),
      checkpoint: () => this.checkpoint(),
      isFenced: () => this.#fences > 0,
    });
  }

  get project(): string {
    return this.#options.project;
  }

  get directory(): string {
    return this.#options.directory;
  }

  get cipher(): EmbeddedStoreOptions['cipher'] {
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
    const { lastSeq, purgedSeq, size } = catalog;
    const collections = catalog.collections();
    const sum = (of: 'documents' | 'bytes') => collections.reduce((total, one) => total + one[of], 0);
    const counts = { size, documents: sum('documents'), bytes: sum('bytes') };
    return {
      lastSeq,
      purgedSeq,
      seals: seals.durable,
      idempotencyRecords: [...idempotencyRecords],
      ...counts,
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
    if (writes.some(({ kind, ref }) => kind === 'put' && this.#indexes.isHeld(ref.collection)))
      throw new AppError('overloaded', { detail: 'a unique index is being read', retryAfterS: 1 });
    return this.#queue.enqueue({ writes, reseals: [], options, bytes });
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

  reseal(limit: number): Promise<number> {
    return this.#resealing.run(limit);
  }

  list(query: ListQuery): Promise<DocumentPage> {
    return this.#reader.list(query);
  }

  async changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage> {
    return this.#reader.changes(after, limit, horizon);
  }

  async position(): Promise<Position> {
    return this.#parts.catalog.lastSeq;
  }

  async waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    const { lastSeq } = this.#parts.catalog;
    return lastSeq > after ? lastSeq : this.#waiters.wait(after, signal);
  }

  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage> {
    return this.#reader.sealedChanges(after, limits);
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    return this.#parts.catalog.collections();
  }

  checkpoint(): Promise<void> {
    return this.#engine.checkpoint(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiters.end();
    await this.#queue.whenIdle();
    await this.#indexes.stop();
    await this.#engine.closed(this);
    this.#queue.attached.detach();
    this.#parts.files.onFailure = undefined;
  }

  /** Ends all writing: document files or a checkpoint failed, or their content on the disk is unknown. */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#queue.refuse(new AppError('storage_unavailable', { cause: error }));
    this.#options.onFailure(error);
  }

  // For a checkpoint.

  /** Documents that are durable behind what the catalog covers, by what they take in the log. */
  get #isCheckpointDue(): boolean {
    if (this.#failed) return false;
    const { least, most } = this.#engine.checkpointBytes;
    const bytes = this.#queue.attached.mark()?.bytes ?? 0;
    // A snapshot is of the whole catalog; however large that is, the log needs its segments.
    return bytes > least && bytes > Math.min(this.#parts.catalog.size * SNAPSHOT_ENTRY_BYTES, most);
  }

  purge(beforeMs: number): number {
    return this.#parts.catalog.purge(beforeMs);
  }

  mark(): LogMark | undefined {
    return this.#queue.attached.mark();
  }

  get covered(): Place | undefined {
    return this.#covered;
  }

  /** The head of a snapshot of now. @param covered the last part of the log in it. */
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

  /** Bytes that a snapshot takes, about. */
  get snapshotBytes(): number {
    const { catalog, idempotencyRecords } = this.#parts;
    return catalog.size * SNAPSHOT_ENTRY_BYTES + idempotencyRecords.memoryBytes;
  }

  /**
   * Whether the log has enough of the project for a snapshot of it; otherwise its parts are better carried.
   */
  get isWorthCheckpoint(): boolean {
    return this.snapshotBytes <= SNAPSHOT_WORTH * (this.#queue.attached.mark()?.bytes ?? 0);
  }

  /** A snapshot that covers the log up to `place` is durable. */
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
