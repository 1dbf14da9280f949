import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { DocumentRef } from '../../cipher/stored-text.ts';
import { Turns } from '../../turns.ts';
import { ChangeWaiters } from '../change-waiters.ts';
import type { EngineIndexes } from '../indexes/port.ts';
import {
  type ChangePage,
  COMMIT_BYTES_MAX,
  COMMITS_WAITING_MAX,
  type CollectionSummary,
  type CommitOptions,
  type DocumentPage,
  type ListQuery,
  type MovableStore,
  type Position,
  type ProjectStore,
  type SealedPage,
  type SealedPageLimits,
  type StoredDocument,
  type StoreRest,
  type Write,
  type WriteResult,
} from '../port.ts';
import type { Quota } from '../quota.ts';
import type { Backlog } from './backlog.ts';
import { ByteWriter } from './bytes.ts';
import { type CheckpointedParts, Checkpoints, type CheckpointsOptions } from './checkpoints.ts';
import { CollectionIndexes } from './collection-indexes.ts';
import type { Disk } from './disk.ts';
import { FRAME_BYTES_MAX } from './frame.ts';
import {
  type FrameChange,
  GroupPreparer,
  type Prepared,
  type PreparedGroup,
  type Unsealed,
  type Waiting,
} from './group-preparer.ts';
import type { StoredIndexes } from './index-file.ts';
import { Reader, type ReaderOptions } from './reader.ts';
import { writeSealsRecord } from './record.ts';
import type { SealCount, SealLimits } from './seal-budget.ts';

export interface EmbeddedStoreOptions extends ReaderOptions, CheckpointsOptions {
  /** The project's folder; `docs`, `journal` and `tmp` lie in it. */
  readonly directory: string;
  readonly disk: Disk;
  /** One for the process. While it is full, commits wait. */
  readonly backlog: Backlog;
  /** Told of a failure that makes the store unusable until it is opened anew. */
  readonly onFailure: (error: unknown) => void;
  /** Told of an index that could not be built. */
  readonly onIndexFailure?: (error: unknown) => void;
  /** Told, now and then, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly sealLimits: SealLimits;
  readonly quota?: Quota | undefined;
}

/** Sealed bytes of documents that are sealed anew in one frame, beyond the first of them. */
const RESEAL_BYTES_MAX = 4_194_304;

/** The parts that `recovery.ts` has brought to the state of the last acknowledged commit. */
export interface EmbeddedParts extends CheckpointedParts {
  readonly indexes: StoredIndexes | undefined;
}

/**
 * The embedded engine, in the manner of Bitcask: a commit is sealed, appended to the journal, made durable by one
 * `fdatasync` that all waiting commits share, published in the catalog and acknowledged. Document files follow in the
 * background; a checkpoint makes them and the catalog durable and lets the journal begin again.
 */
export class EmbeddedStore implements ProjectStore {
  readonly #options: EmbeddedStoreOptions;
  readonly #parts: EmbeddedParts;
  readonly #waiting: Waiting[] = [];
  /** Durable, and not answered yet. */
  readonly #durable: Prepared[] = [];
  readonly #preparer: GroupPreparer;
  readonly #indexes: CollectionIndexes;
  readonly #reader: Reader;
  readonly #checkpoints: Checkpoints;
  readonly #journalTurn = new Turns();
  readonly #waiters = new ChangeWaiters();
  #pumping: Promise<void> | undefined;
  #waitingBytes = 0;
  #failed = false;
  #fences = 0;
  /**
   * Where in the catalog re-sealing goes on; undefined once it came to the end. What is written meanwhile is under the current
   * version, so there is nothing to come back for.
   */
  #resealFrom: number | undefined = 0;

  constructor(options: EmbeddedStoreOptions, parts: EmbeddedParts) {
    this.#options = options;
    this.#parts = parts;
    const { catalog, writer } = parts;
    this.#reader = new Reader(options, catalog, writer);
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
    );
    this.#checkpoints = new Checkpoints(options, parts, {
      indexes: this.#indexes,
      journalTurn: this.#journalTurn,
      hasIndexFile: parts.indexes !== undefined,
      failed: () => this.#failed,
      fail: (error) => this.fail(error),
    });
    const { cipher, clock, quota } = options;
    this.#preparer = new GroupPreparer({ ...parts, indexes: this.#indexes, cipher, clock, quota });
  }

  get failed(): boolean {
    return this.#failed;
  }

  get indexes(): EngineIndexes {
    return this.#indexes;
  }

  getAtHand(ref: DocumentRef): StoredDocument | undefined {
    return this.#reader.getAtHand(ref);
  }

  get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    return this.#reader.get(ref);
  }

  /** The store itself. */
  get movable(): MovableStore {
    return this;
  }

  async rest(): Promise<StoreRest> {
    const { catalog, seals, usedKeys } = this.#parts;
    const { lastSeq, purgedSeq, size } = catalog;
    const collections = catalog.collections();
    const sum = (of: 'documents' | 'bytes') => collections.reduce((total, one) => total + one[of], 0);
    const counts = { size, documents: sum('documents'), bytes: sum('bytes') };
    return { lastSeq, purgedSeq, seals: seals.durable, usedKeys: [...usedKeys], ...counts };
  }

  async fence(): Promise<Disposable> {
    this.#fences++;
    await this.#pumping;
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (!isOver) this.#fences--;
        isOver = true;
      },
    };
  }

  commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    if (this.#fences > 0) return Promise.reject(new AppError('project_moving', { retryAfterS: 1 }));
    const bytes = writes.reduce((sum, write) => sum + bytesOf(write), 0);
    if (bytes > COMMIT_BYTES_MAX) return Promise.reject(new AppError('payload_too_large'));
    if (this.#waiting.length >= COMMITS_WAITING_MAX || this.#waitingBytes > 2 * COMMIT_BYTES_MAX)
      return Promise.reject(new AppError('overloaded'));
    if (writes.some(({ kind, ref }) => kind === 'put' && this.#indexes.isHeld(ref.collection)))
      return Promise.reject(
        new AppError('overloaded', { detail: 'a unique index is being read', retryAfterS: 1 }),
      );
    return this.#enqueue({ writes, reseals: [], options, bytes });
  }

  #enqueue(commit: Omit<Waiting, 'done'>): Promise<readonly WriteResult[]> {
    const done = Promise.withResolvers<readonly WriteResult[]>();
    this.#waiting.push({ ...commit, done });
    this.#waitingBytes += commit.bytes;
    this.#pumping ??= this.#pump();
    return done.promise;
  }

  get memoryBytes(): number {
    const { catalog, usedKeys } = this.#parts;
    return catalog.memoryBytes + usedKeys.memoryBytes + this.#indexes.memoryBytes;
  }

  get toReseal(): number {
    return this.#parts.catalog.sealedUnderOthers(this.#options.cipher.version);
  }

  async reseal(limit: number): Promise<number> {
    if (this.#resealFrom === undefined || this.#fences > 0) return 0;
    const { states, next } = this.#parts.catalog.someUnderOthers(
      this.#options.cipher.version,
      this.#resealFrom,
      { limit, bytesMax: RESEAL_BYTES_MAX },
    );
    const reseals: Unsealed[] = [];
    for (const state of states) {
      // One that does not open stays as it is; whoever reads it is told.
      const document = await this.get(state).catch(() => undefined);
      if (document?.metadata._rev === state.rev.toString('hex')) reseals.push({ state, text: document.text });
    }
    const bytes = reseals.reduce((sum, { text }) => sum + text.length + RECORD_OVERHEAD_BYTES, 0);
    if (this.#fences > 0) return 0;
    if (reseals.length > 0) await this.#enqueue({ writes: [], reseals, options: {}, bytes });
    this.#resealFrom = next;
    return reseals.length;
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

  async checkpoint(): Promise<void> {
    // One that is under way began before the latest commits.
    await this.#checkpoints.settled();
    await this.#checkpoints.run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiters.end();
    this.#checkpoints.giveUp();
    await this.#pumping;
    await this.#checkpoints.settled();
    await this.#indexes.stop();
    await this.#parts.writer.stop();
    await this.#journalTurn.run(() => this.#parts.journal.close());
  }

  /**
   * Ends all writing: what is on the disk is not known any more; or document files, or a checkpoint, cannot be written, and the journal, which still
   * has everything, must not grow for ever.
   */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.onFailure(error);
  }

  /** Commits what waits, frame by frame, until nothing does. Never rejects. */
  async #pump(): Promise<void> {
    // What is asked for in the same turn of the event loop goes into the same frame.
    await setImmediate();
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      // Asked first where the answer is mostly yes: each promise that is not made counts when a frame holds one commit.
      const refused = this.#parts.writer.isRoomy ? undefined : await this.#refusedForSpace(group);
      const accepted = refused === undefined ? group : group.filter(onlyDeletes);
      try {
        await this.#commitGroup(accepted);
      } catch (error) {
        // What commitGroup did not settle; settled ones ignore it.
        for (const { done } of accepted) done.reject(error);
      }
      if (refused !== undefined) for (const { done } of group) done.reject(refused);
      if (this.#checkpoints.isDue) {
        this.#acknowledge();
        await this.#checkpoints.keepJournalShort();
      }
    }
    this.#acknowledge();
    // In the same turn in which nothing was found waiting: a commit that comes now must start the pump again.
    this.#pumping = undefined;
  }

  /**
   * Answers the commits that are durable. They wait for it until the next frame is on its way to the disk, so that the disk is busy
   * while answers are made; and nothing is awaited before.
   */
  #acknowledge(): void {
    for (const { results, waiting } of this.#durable.splice(0)) waiting.done.resolve(results);
  }

  /** Waits until document files have caught up. @returns why documents cannot be taken, when that is so. */
  async #refusedForSpace(group: readonly Waiting[]): Promise<unknown> {
    this.#acknowledge();
    if (group.every(onlyDeletes)) return undefined;
    try {
      await this.#parts.writer.room();
      return undefined;
    } catch (error) {
      return error;
    }
  }

  #takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    let bytes = 0;
    for (const waiting of this.#waiting) {
      if (group.length > 0 && bytes + waiting.bytes > FRAME_BYTES_MAX) break;
      bytes += waiting.bytes;
      group.push(waiting);
    }
    this.#waiting.splice(0, group.length);
    this.#waitingBytes -= bytes;
    return group;
  }

  async #commitGroup(group: readonly Waiting[]): Promise<void> {
    if (this.#failed) throw new AppError('storage_unavailable');
    let prepared: PreparedGroup;
    try {
      if (this.#missingSeals(group) !== undefined) await this.#reserveSeals(group);
      // In the same turn in which enough seals were found reserved.
      prepared = this.#preparer.prepare(group);
      const mayUseReserve = prepared.commits.every(({ waiting }) => onlyDeletes(waiting));
      // Published in the same turn: a checkpoint that begins next must find in the catalog and among the files all that lies in the
      // segments that it frees.
      const appended = this.#append(prepared.frame, mayUseReserve, () => {
        for (const change of prepared.changes) this.#publish(change);
        if (!this.#waiters.isEmpty) this.#waiters.committed(this.#parts.catalog.lastSeq);
      });
      this.#acknowledge();
      await appended;
    } catch (error) {
      if (hasCode(error, 'disk_full', 'key_exhausted')) return this.#commitDeletesOf(group, error);
      throw error;
    }
    this.#durable.push(...prepared.commits);
  }

  /** The group as a whole cannot be; its deletes need neither space nor seals, and may not suffer from who came with them. */
  async #commitDeletesOf(group: readonly Waiting[], error: unknown): Promise<void> {
    const deletes = group.filter(onlyDeletes);
    if (deletes.length === 0 || deletes.length === group.length) throw error;
    for (const waiting of group) if (!onlyDeletes(waiting)) waiting.done.reject(error);
    await this.#commitGroup(deletes);
  }

  /** What must be reserved before the group can be sealed. @throws AppError `key_exhausted`. */
  #missingSeals(group: readonly Waiting[]): SealCount | undefined {
    return this.#parts.seals.reservationFor(group.reduce((sum, waiting) => sum + sealsOf(waiting), 0));
  }

  /** Makes sure that the seals of a group are durably reserved. @throws AppError `key_exhausted`. */
  async #reserveSeals(group: readonly Waiting[]): Promise<void> {
    this.#acknowledge();
    const { seals } = this.#parts;
    for (
      let missing = this.#missingSeals(group);
      missing !== undefined;
      missing = this.#missingSeals(group)
    ) {
      const reservation = missing;
      const writer = new ByteWriter(16);
      writeSealsRecord(writer, reservation);
      // One turn, so that a checkpoint settles the budget either before or after it.
      await this.#append(writer.finish(), false, () => seals.reserved(reservation));
      if (seals.rotationDue) this.#options.onRotationDue(this.#options.cipher.version);
    }
  }

  /** Makes a frame durable. A failure other than a full disk ends all writing. */
  async #append(frame: Buffer, mayUseReserve: boolean, then: () => void): Promise<void> {
    if (frame.length === 0) return;
    try {
      await this.#journalTurn.run(async () => {
        await this.#parts.journal.append([frame], { mayUseReserve });
        then();
      });
    } catch (error) {
      if (hasCode(error, 'disk_full')) throw error;
      this.fail(error);
      throw new AppError('storage_unavailable', { cause: error });
    }
  }

  /** Makes a durable change visible, and has its file written. */
  #publish(change: FrameChange): void {
    const { catalog, usedKeys, writer } = this.#parts;
    if (change.kind === 'used key') {
      usedKeys.add(change.used);
      return;
    }
    const { state, fileName, sealed } = change;
    const { cache, project } = this.#options;
    catalog.apply(state);
    if (change.indexing !== undefined && this.#indexes.has(state.collection))
      this.#indexes.apply(state, change.indexing.text, change.indexing.keys);
    if (state.deletedMs === 0) {
      writer.put(fileName, sealed);
      cache.update(project, fileName, sealed);
    } else {
      writer.remove(fileName);
      cache.delete(project, fileName);
    }
  }
}

/**
 * What a write adds to its document's bytes in a frame, at most: an id of 512 bytes in the record, escaped in the text and
 * escaped in the answer of an idempotency key, and names, numbers and times. So what is counted bounds what is written.
 */
const RECORD_OVERHEAD_BYTES = 4_096;

function onlyDeletes({ writes, reseals }: Waiting): boolean {
  return reseals.length === 0 && writes.every(({ kind }) => kind === 'delete');
}

function sealsOf({ writes, reseals }: Waiting): number {
  return reseals.length + writes.filter(({ kind }) => kind === 'put').length;
}

function bytesOf(write: Write): number {
  return RECORD_OVERHEAD_BYTES + (write.kind === 'put' ? write.content.bytes.length : 0);
}
