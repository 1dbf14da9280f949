import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import { type OwnWork, ownWork } from '../../../work/scheduler.ts';
import { ByteWriter } from '../../bytes.ts';
import { CommitNotifier } from '../../commit-notifier.ts';
import { admit, WRITE_OVERHEAD_BYTES } from '../../commit-plan.ts';
import type { IdempotencyRecords } from '../../idempotency-records.ts';
import type { EngineIndexes } from '../../index-port.ts';
import type {
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
import type { SealBudget, SealCount, SealLimits } from '../../seal-budget.ts';
import { writeSealsRecord } from '../../state.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { StoredIndexes } from '../catalog/index-file.ts';
import type { SnapshotHead } from '../catalog/snapshot.ts';
import type { ProjectFiles } from '../documents/document-writer.ts';
import type { Place } from '../log/layout.ts';
import type { AttachedHandle, LogMark, PartSource, TakenPart } from '../log/log-api.ts';
import type { PartKeys } from '../log/part-seal.ts';
import type { CheckpointSource, StoredIndexState } from './checkpoint.ts';
import { CollectionIndexes } from './collection-indexes.ts';
import {
  type FrameChange,
  GroupPreparer,
  likelyBytes,
  type Prepared,
  type Unsealed,
  type Waiting,
} from './group-preparer.ts';
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

/** Sealed bytes of documents that one part re-seals, beyond the first of them. */
const RESEAL_BYTES_MAX = 4_194_304;
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
 */
export class EmbeddedStore implements ProjectStore, PartSource, CheckpointSource {
  readonly handle: string;
  readonly keys: PartKeys;
  readonly #options: EmbeddedStoreOptions;
  readonly #parts: EmbeddedParts;
  readonly #engine: EnginePort;
  readonly #attached: AttachedHandle;
  #waiting: Waiting[] = [];
  readonly #preparer: GroupPreparer;
  readonly #indexes: CollectionIndexes;
  readonly ownWork: OwnWork;
  readonly #reader: StoreReader;
  readonly #waiters = new CommitNotifier();
  /** Resolved when no commit waits or is being written. */
  #idle: PromiseWithResolvers<void> | undefined;
  #partsBeingWritten = 0;
  #waitingBytes = 0;
  #failed = false;
  #fences = 0;
  #covered: Place | undefined;
  /** Key versions that catalog and log need, beside those of the documents. */
  #versions: ReadonlySet<number>;
  /**
   * Where in the catalog re-sealing continues; undefined once it is at the end. Writes since then are under
   * the current version.
   */
  #resealFrom: number | undefined = 0;
  readonly indexState: StoredIndexState;

  constructor(options: EmbeddedStoreOptions, parts: EmbeddedParts, engine: EnginePort) {
    this.#options = options;
    this.#parts = parts;
    this.#engine = engine;
    this.handle = parts.handle;
    this.keys = options.cipher;
    this.#covered = parts.covered;
    this.#versions = parts.versions;
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
        get: (ref) => this.get(ref),
        countOf: (collection) =>
          catalog.collections().find(({ name }) => name === collection)?.documents ?? 0,
      },
      parts.indexes,
      (error) => this.#options.onIndexFailure?.(error),
      this.ownWork,
    );
    this.indexState = { isThere: parts.indexes !== undefined, writtenFrom: undefined };
    const { cipher, clock, quota } = options;
    this.#preparer = new GroupPreparer({ ...parts, indexes: this.#indexes, cipher, clock, quota });
    files.onFailure = (error) => this.fail(error);
    this.#attached = engine.attach(this, parts.last);
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

  get(ref: DocumentRef): Promise<StoredDocument | undefined> {
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
    await this.#whenIdle();
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
    const bytes = admit(writes, { commits: this.#waiting.length, bytes: this.#waitingBytes });
    if (writes.some(({ kind, ref }) => kind === 'put' && this.#indexes.isHeld(ref.collection)))
      throw new AppError('overloaded', { detail: 'a unique index is being read', retryAfterS: 1 });
    return this.#enqueue({ writes, reseals: [], options, bytes });
  }

  #enqueue(commit: Omit<Waiting, 'done'>): Promise<readonly WriteResult[]> {
    const done = Promise.withResolvers<readonly WriteResult[]>();
    this.#waiting.push({ ...commit, done });
    this.#waitingBytes += commit.bytes;
    this.#attached.ready();
    return done.promise;
  }

  get memoryBytes(): number {
    const { catalog, files, idempotencyRecords } = this.#parts;
    return (
      catalog.memoryBytes + files.memoryBytes + idempotencyRecords.memoryBytes + this.#indexes.memoryBytes
    );
  }

  /** At least 1 while the catalog or parts of the log are under another version: their turn is last. */
  get pendingReencryption(): number {
    const { version } = this.#options.cipher;
    const isBehind = [...this.#versions].some((one) => one !== version);
    return Math.max(this.#parts.catalog.sealedUnderOthers(version), isBehind ? 1 : 0);
  }

  async reseal(limit: number): Promise<number> {
    if (this.#fences > 0) return 0;
    if (this.#resealFrom === undefined) {
      await this.#checkpointUnderCurrentKey();
      return 0;
    }
    const { states, next } = this.#parts.catalog.someUnderOthers(
      this.#options.cipher.version,
      this.#resealFrom,
      { limit, bytesMax: RESEAL_BYTES_MAX },
    );
    const reseals: Unsealed[] = [];
    for (const state of states) {
      // A document that does not open stays as it is: reading it reports the damage.
      const document = await this.get(state).catch(() => undefined);
      if (document?.metadata._rev === state.rev.toString('hex')) reseals.push({ state, text: document.text });
    }
    const bytes = reseals.reduce((sum, { text }) => sum + text.length + WRITE_OVERHEAD_BYTES, 0);
    if (this.#fences > 0) return 0;
    if (reseals.length > 0) await this.#enqueue({ writes: [], reseals, options: {}, bytes });
    this.#resealFrom = next;
    if (next === undefined) await this.#checkpointUnderCurrentKey();
    return reseals.length;
  }

  /** Once no document is under a former key version, a checkpoint frees catalog and log from them, too. */
  async #checkpointUnderCurrentKey(): Promise<void> {
    const documents = this.#parts.catalog.sealedUnderOthers(this.#options.cipher.version);
    if (documents === 0 && this.pendingReencryption > 0) await this.checkpoint();
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
    await this.#whenIdle();
    await this.#indexes.stop();
    await this.#engine.closed(this);
    this.#attached.detach();
    this.#parts.files.onFailure = undefined;
  }

  /** Ends all writing: document files or a checkpoint failed, or their content on the disk is unknown. */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#refuseAll(new AppError('storage_unavailable', { cause: error }), () => true);
    this.#options.onFailure(error);
  }

  // For the log.

  get makesRoom(): boolean {
    const [first] = this.#waiting;
    return first !== undefined && onlyDeletes(first);
  }

  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined {
    const { files } = this.#parts;
    if (files.isFull) this.#refuseAll(new AppError('disk_full'), isNoDelete);
    while (this.#waiting.length > 0) {
      if (!onlyMakingRoom && !files.hasCapacity) {
        files.whenCapacity(() => this.#attached.ready());
        return undefined;
      }
      const group = this.#takeGroup(bytesMax, onlyMakingRoom);
      if (group.length === 0) return undefined;
      const part = this.#partOf(group);
      if (part !== undefined) return part;
    }
    this.#noteIdle();
    return undefined;
  }

  refuse(error: AppError): void {
    this.#refuseAll(error, error.code === 'disk_full' ? isNoDelete : () => true);
  }

  // For a checkpoint.

  /** Documents that are durable behind what the catalog covers, by what they take in the log. */
  get #isCheckpointDue(): boolean {
    if (this.#failed) return false;
    const { least, most } = this.#engine.checkpointBytes;
    const bytes = this.#attached.mark()?.bytes ?? 0;
    // A snapshot is of the whole catalog; however large that is, the log needs its segments.
    return bytes > least && bytes > Math.min(this.#parts.catalog.size * SNAPSHOT_ENTRY_BYTES, most);
  }

  purge(beforeMs: number): number {
    return this.#parts.catalog.purge(beforeMs);
  }

  mark(): LogMark | undefined {
    return this.#attached.mark();
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
    return this.snapshotBytes <= SNAPSHOT_WORTH * (this.#attached.mark()?.bytes ?? 0);
  }

  /** A snapshot that covers the log up to `place` is durable. */
  covers(place: Place | undefined): void {
    this.#covered = place;
    const { version } = this.#options.cipher;
    this.#versions = new Set([version]);
  }

  /** The commits that wait longest, in order. */
  #takeGroup(bytesMax: number, onlyMakingRoom: boolean): Waiting[] {
    let count = 0;
    let bytes = 0;
    for (const waiting of this.#waiting) {
      bytes += likelyBytes(waiting);
      if ((count > 0 && bytes > bytesMax) || (onlyMakingRoom && !onlyDeletes(waiting))) break;
      this.#waitingBytes -= waiting.bytes;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  /** @returns undefined when the group writes nothing; each commit of it is answered then. */
  #partOf(group: readonly Waiting[]): TakenPart | undefined {
    const seals = group.reduce((sum, waiting) => sum + sealsOf(waiting), 0);
    let reservation: SealCount | undefined;
    try {
      const plan = this.#parts.seals.planFor(seals);
      reservation = plan.reservation;
      if (plan.mustWait && reservation !== undefined) {
        // The reservation goes first, in a part of its own.
        this.#waiting = [...group, ...this.#waiting];
        this.#waitingBytes += group.reduce((sum, { bytes }) => sum + bytes, 0);
        return this.#taken([], [], Buffer.alloc(0), reservation);
      }
    } catch (error) {
      for (const waiting of group) if (isNoDelete(waiting)) waiting.done.reject(error);
      const deletes = group.filter(onlyDeletes);
      return deletes.length === 0 ? undefined : this.#partOf(deletes);
    }
    let prepared: ReturnType<GroupPreparer['prepare']>;
    try {
      prepared = this.#preparer.prepare(group);
    } catch (error) {
      for (const { done } of group) done.reject(error);
      return undefined;
    }
    if (prepared.frame.length > 0)
      return this.#taken(prepared.commits, prepared.changes, prepared.frame, reservation);
    // All are repetitions under idempotency keys.
    for (const { results, waiting } of prepared.commits) waiting.done.resolve(results);
    return undefined;
  }

  #taken(
    commits: readonly Prepared[],
    changes: readonly FrameChange[],
    frame: Buffer,
    reservation: SealCount | undefined,
  ): TakenPart {
    const refuse = (error: AppError) => {
      for (const { waiting } of commits) waiting.done.reject(error);
      this.#partsBeingWritten--;
      this.#noteIdle();
    };
    this.#partsBeingWritten++;
    return {
      kind: 'data',
      plaintext: reservation === undefined ? [frame] : [frame, recordOf(reservation)],
      keyVersion: this.#options.cipher.version,
      commits: commits.length,
      durable: () => {
        if (reservation !== undefined) this.#reserved(reservation);
        for (const change of changes) this.#publish(change);
        if (changes.length > 0 && !this.#waiters.isEmpty)
          this.#waiters.committed(this.#parts.catalog.lastSeq);
      },
      answer: () => {
        for (const { results, waiting } of commits) waiting.done.resolve(results);
        this.#partsBeingWritten--;
        this.#noteIdle();
        if (this.#isCheckpointDue) void this.#engine.checkpoint(this).catch(() => undefined);
      },
      refused: refuse,
      unknown: refuse,
    };
  }

  #reserved(reservation: SealCount): void {
    const { seals } = this.#parts;
    seals.reserved(reservation);
    if (seals.rotationDue) this.#options.onRotationDue(this.#options.cipher.version);
  }

  #refuseAll(error: AppError, isRefused: (waiting: Waiting) => boolean): void {
    const left: Waiting[] = [];
    for (const waiting of this.#waiting) {
      if (!isRefused(waiting)) left.push(waiting);
      else {
        this.#waitingBytes -= waiting.bytes;
        waiting.done.reject(error);
      }
    }
    this.#waiting = left;
    this.#noteIdle();
  }

  /** Resolves once no commit waits or is being written. */
  async #whenIdle(): Promise<void> {
    if (this.#waiting.length === 0 && this.#partsBeingWritten === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  #noteIdle(): void {
    if (this.#idle === undefined || this.#waiting.length > 0 || this.#partsBeingWritten > 0) return;
    this.#idle.resolve();
    this.#idle = undefined;
  }

  /** Makes a durable change visible, and queues its file. */
  #publish(change: FrameChange): void {
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

function recordOf(reservation: SealCount): Buffer {
  const writer = new ByteWriter(16);
  writeSealsRecord(writer, reservation);
  return writer.finish();
}

function onlyDeletes({ writes, reseals }: Waiting): boolean {
  return reseals.length === 0 && writes.every(({ kind }) => kind === 'delete');
}

function isNoDelete(waiting: Waiting): boolean {
  return !onlyDeletes(waiting);
}

function sealsOf({ writes, reseals }: Waiting): number {
  return reseals.length + writes.filter(({ kind }) => kind === 'put').length;
}
