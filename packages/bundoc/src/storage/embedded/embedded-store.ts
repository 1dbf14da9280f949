import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { OpenError } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { type DocumentRef, readStoredMetadata } from '../../cipher/stored-text.ts';
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
  type ListedDocument,
  type ListQuery,
  type MovableStore,
  type Position,
  type ProjectStore,
  type SealedChange,
  type SealedPage,
  type SealedPageLimits,
  type StoredDocument,
  type StoreRest,
  TOMBSTONE_TTL_MS,
  type Write,
  type WriteResult,
} from '../port.ts';
import type { Quota } from '../quota.ts';
import type { Backlog } from './backlog.ts';
import { ByteWriter } from './bytes.ts';
import type { Catalog, ListedPlace, LivingDocument } from './catalog.ts';
import { CollectionIndexes } from './collection-indexes.ts';
import { type Disk, replaceFile } from './disk.ts';
import type { FileWriter } from './file-writer.ts';
import { FRAME_BYTES_MAX } from './frame.ts';
import {
  type FrameChange,
  GroupPreparer,
  type Prepared,
  type PreparedGroup,
  type Unsealed,
  type Waiting,
} from './group-preparer.ts';
import { encodeIndexes, INDEX_FILE, type StoredIndexes } from './index-file.ts';
import type { Journal } from './journal.ts';
import { type DocumentState, writeSealsRecord } from './record.ts';
import type { SealBudget, SealCount, SealLimits } from './seal-budget.ts';
import type { SealedCache } from './sealed-cache.ts';
import { encodeSnapshot } from './snapshot.ts';
import type { UsedKeys } from './used-keys.ts';

export interface EmbeddedStoreOptions {
  readonly project: string;
  /** The project's folder; `docs`, `journal` and `tmp` lie in it. */
  readonly directory: string;
  readonly disk: Disk;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly cache: SealedCache;
  /** One for the process. While it is full, commits wait. */
  readonly backlog: Backlog;
  /** Told of every document file that does not open, by its (opaque) name. */
  readonly onIntegrityError: (fileName: string) => void;
  /** Told of a failure that makes the store unusable until it is opened anew. */
  readonly onFailure: (error: unknown) => void;
  /** Told of an index that could not be built. */
  readonly onIndexFailure?: (error: unknown) => void;
  /** Told, now and then, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly limits: EmbeddedLimits;
  readonly sealLimits: SealLimits;
  readonly quota?: Quota | undefined;
}

export interface EmbeddedLimits {
  /** Size of a new journal segment, bytes. */
  readonly segmentBytes: number;
  /** Journal bytes after which a checkpoint begins, unless the catalog has more: a snapshot is of all of it. */
  readonly checkpointBytes: number;
}

/** How many times its checkpoint's size the journal may have before commits wait for one. */
const JOURNAL_LONG = 4;
/** What a document takes in a snapshot, about. */
const SNAPSHOT_ENTRY_BYTES = 120;
const CHECKPOINT_PAUSE_MS = 1_000;
/** Sealed bytes of documents that are sealed anew in one frame, beyond the first of them. */
const RESEAL_BYTES_MAX = 4_194_304;
export const CATALOG_FILE = 'catalog';

/** The parts that `recovery.ts` has brought to the state of the last acknowledged commit. */
export interface EmbeddedParts {
  readonly catalog: Catalog;
  readonly journal: Journal;
  readonly usedKeys: UsedKeys;
  readonly writer: FileWriter;
  readonly seals: SealBudget;
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
  readonly #journalTurn = new Turns();
  readonly #waiters = new ChangeWaiters();
  #pumping: Promise<void> | undefined;
  #checkpointing: Promise<void> | undefined;
  #waitingBytes = 0;
  #failed = false;
  #isClosing = false;
  #fences = 0;
  #hasIndexFile: boolean;
  /** What the file of indexes is of. */
  #storedIndexes: string | undefined;
  /** No checkpoint begins by itself before this moment (monotonic). */
  #checkpointAgainMs = 0;
  /**
   * Where in the catalog re-sealing goes on; undefined once it came to the end. What is written meanwhile is under the current
   * version, so there is nothing to come back for.
   */
  #resealFrom: number | undefined = 0;

  constructor(options: EmbeddedStoreOptions, parts: EmbeddedParts) {
    this.#options = options;
    this.#parts = parts;
    const { catalog } = parts;
    this.#hasIndexFile = parts.indexes !== undefined;
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
    const living = this.#parts.catalog.living(ref);
    return living && this.#openInMemory(ref, living);
  }

  async get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    for (;;) {
      const living = this.#parts.catalog.living(ref);
      if (living === undefined) return undefined;
      const inMemory = this.#inMemory(living);
      const document =
        inMemory === undefined ? await this.#readFile(ref, living) : this.#open(ref, living, inMemory);
      if (document !== undefined) return document;
      // It was overwritten while it was read; then there is a later state to look at.
      if (this.#parts.catalog.living(ref)?.seq !== living.seq) continue;
      this.#options.onIntegrityError(living.fileName);
      throw new AppError('integrity_error');
    }
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

  async list({ collection, after, limit, bytesMax }: ListQuery): Promise<DocumentPage> {
    const places: ListedPlace[] = [];
    let bytes = 0;
    let more = false;
    for (const place of this.#parts.catalog.list(collection, after)) {
      bytes += place.size;
      if (places.length === limit || (bytes > bytesMax && places.length > 0)) {
        more = true;
        break;
      }
      places.push(place);
    }
    const unreadable: string[] = [];
    // Mostly all are in memory: then there is nothing to wait for, and no promise is made. What was just read from the catalog still holds.
    const atHand = places.map((place) => listed(this.#openInMemory(place, place), place));
    const documents = atHand.every((document) => document !== undefined)
      ? atHand
      : await Promise.all(
          places.map(async (place, at) => {
            try {
              return atHand[at] ?? listed(await this.get(place), place);
            } catch (error) {
              // A damaged document must not keep the others from being listed.
              if (!hasCode(error, 'integrity_error')) throw error;
              unreadable.push(place.id);
              return undefined;
            }
          }),
        );
    return {
      documents: documents.filter((document) => document !== undefined),
      unreadable,
      next: more ? places.at(-1)?.createdSeq : undefined,
    };
  }

  async changes(after: Position, limit: number, horizon: Position = 0): Promise<ChangePage> {
    const { catalog } = this.#parts;
    // Who begins now has seen nothing that a forgotten deletion could be of.
    const known = after === 0 ? catalog.purgedSeq : horizon;
    if (catalog.purgedSeq > Math.max(after, known)) throw new AppError('position_gone');
    const states = catalog.changes(after).take(limit).toArray();
    return {
      changes: states.map((state) => ({
        ref: { collection: state.collection, id: state.id },
        rev: state.rev.toString('hex'),
        deleted: state.deletedMs !== 0,
        position: state.seq,
      })),
      position: states.at(-1)?.seq ?? Math.max(after, catalog.lastSeq),
      horizon: known,
    };
  }

  async position(): Promise<Position> {
    return this.#parts.catalog.lastSeq;
  }

  async waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    const { lastSeq } = this.#parts.catalog;
    return lastSeq > after ? lastSeq : this.#waiters.wait(after, signal);
  }

  async sealedChanges(after: Position, { limit, bytesMax }: SealedPageLimits): Promise<SealedPage> {
    const { catalog } = this.#parts;
    const { lastSeq, purgedSeq: forgotten } = catalog;
    const states = catalog.changes(after).take(limit).toArray();
    const changes: SealedChange[] = [];
    let isComplete = states.length < limit;
    let position = after;
    let bytes = 0;
    for (const state of states) {
      if (bytes >= bytesMax) return { changes, position, isComplete: false, forgotten };
      const sealed = state.deletedMs === 0 ? await this.#sealedOf(state) : undefined;
      if (sealed === undefined && state.deletedMs === 0) isComplete = false;
      else changes.push({ state: sealed === undefined ? state : { ...state, size: sealed.length }, sealed });
      bytes += sealed?.length ?? 0;
      position = state.seq;
    }
    return { changes, position: states.length < limit ? lastSeq : position, isComplete, forgotten };
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    return this.#parts.catalog.collections();
  }

  async checkpoint(): Promise<void> {
    // One that is under way began before the latest commits.
    await this.#checkpointing?.catch(() => undefined);
    await this.#startCheckpoint();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    this.#waiters.end();
    // Whatever a checkpoint still waits for: without it, the journal is replayed.
    this.#parts.writer.giveUpFlushes();
    await this.#pumping;
    await this.#checkpointing?.catch(() => undefined);
    await this.#indexes.stop();
    await this.#parts.writer.stop();
    await this.#journalTurn.run(() => this.#parts.journal.close());
  }

  /** Document files cannot be written: the journal still has everything, but it must not grow for ever. */
  fileWriterFailed(error: unknown): void {
    this.#fail(error);
  }

  /** Undefined for one that is not in memory, or whose bytes are not it. */
  #openInMemory(ref: DocumentRef, living: LivingDocument): StoredDocument | undefined {
    const sealed = this.#inMemory(living);
    return sealed && this.#open(ref, living, sealed);
  }

  /** Sealed bytes that wait for their file, or that were used lately. */
  #inMemory({ fileName }: LivingDocument): Buffer | undefined {
    const { cache, project } = this.#options;
    return this.#parts.writer.pending(fileName) ?? cache.get(project, fileName);
  }

  async #readFile(ref: DocumentRef, living: LivingDocument): Promise<StoredDocument | undefined> {
    const { disk, directory, cache, project } = this.#options;
    const { fileName } = living;
    const sealed = await disk.read(join(directory, 'docs', fileName.slice(0, 2), fileName));
    const document = sealed && this.#open(ref, living, sealed);
    if (sealed === undefined || document === undefined) return undefined;
    // An overwrite during the read must not be followed by the older bytes in the cache.
    if (this.#parts.catalog.living(ref)?.seq === living.seq) cache.set(project, fileName, sealed);
    return document;
  }

  /** The bytes of a document that were found to open; undefined when it has changed since. */
  async #sealedOf(state: DocumentState): Promise<Buffer | undefined> {
    const { disk, directory, onIntegrityError } = this.#options;
    for (;;) {
      const living = this.#parts.catalog.living(state);
      if (living?.seq !== state.seq) return undefined;
      const { fileName } = living;
      const sealed =
        this.#inMemory(living) ?? (await disk.read(join(directory, 'docs', fileName.slice(0, 2), fileName)));
      if (sealed !== undefined && this.#open(state, living, sealed) !== undefined) return sealed;
      const now = this.#parts.catalog.living(state);
      // It was sealed anew while its file was read.
      if (now?.seq === living.seq && now.keyVersion !== living.keyVersion) continue;
      if (now?.seq !== state.seq) return undefined;
      onIntegrityError(fileName);
      throw new AppError('integrity_error');
    }
  }

  /** The document, or undefined when the bytes are not this state of it. */
  #open(ref: DocumentRef, living: LivingDocument, sealed: Buffer): StoredDocument | undefined {
    try {
      const text = this.#options.cipher.openDocument(living.fileName, sealed, living.keyVersion);
      const metadata = readStoredMetadata(text, ref);
      return metadata?._rev === living.rev ? { metadata, text } : undefined;
    } catch (error) {
      if (error instanceof OpenError) return undefined;
      throw error;
    }
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
      if (this.#isJournalLong) await this.#keepJournalShort();
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

  /** A checkpoint is due. */
  get #isJournalLong(): boolean {
    return !this.#failed && this.#parts.journal.liveBytes > this.#checkpointBytes();
  }

  /** Begins a checkpoint, and waits for it when the journal has become much too long. */
  async #keepJournalShort(): Promise<void> {
    this.#acknowledge();
    const nowMs = this.#options.clock.monotonic();
    if (nowMs < this.#checkpointAgainMs) return;
    const checkpoint = this.#startCheckpoint().catch((error: unknown) => {
      if (!hasCode(error, 'disk_full') && !this.#isClosing) this.#fail(error);
      // Each try ends a segment, which a full disk has no room for.
      this.#checkpointAgainMs = nowMs + CHECKPOINT_PAUSE_MS;
    });
    if (this.#parts.journal.liveBytes > JOURNAL_LONG * this.#checkpointBytes()) await checkpoint;
  }

  /** A snapshot is of the whole catalog: it is not worth its writing before the journal has become as long. */
  #checkpointBytes(): number {
    return Math.max(this.#options.limits.checkpointBytes, this.#parts.catalog.size * SNAPSHOT_ENTRY_BYTES);
  }

  #startCheckpoint(): Promise<void> {
    this.#checkpointing ??= this.#checkpoint().finally(() => {
      this.#checkpointing = undefined;
    });
    return this.#checkpointing;
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
      this.#fail(error);
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

  /**
   * Files durable, then a snapshot that names the first segment that is still needed, then the segments before it are free. The
   * snapshot is taken while commits go on; those are in the segments that it names.
   */
  async #checkpoint(): Promise<void> {
    if (this.#failed) throw new AppError('storage_unavailable');
    const { disk, directory, cipher, project, clock } = this.#options;
    const { catalog, journal, writer, usedKeys } = this.#parts;
    const purged = catalog.purge(clock.now() - TOMBSTONE_TTL_MS);
    if (purged === 0 && journal.liveBytes === 0) return this.#storeIndexes(catalog.lastSeq);
    // It could not end, and every rotation takes another segment.
    if (writer.full) throw new AppError('disk_full');
    const head = await this.#journalTurn.run(async () => {
      const start = await journal.beginCheckpoint();
      const { lastSeq, purgedSeq } = catalog;
      return { start, lastSeq, purgedSeq, seals: this.#parts.seals.settle() };
    });
    await writer.flush();
    const snapshot = this.#untilClosing(encodeSnapshot(project, cipher, head, usedKeys, catalog));
    await replaceFile(disk, join(directory, 'tmp'), join(directory, CATALOG_FILE), snapshot);
    const { checkpointBytes, segmentBytes } = this.#options.limits;
    const keep = 2 + Math.ceil(checkpointBytes / segmentBytes);
    await this.#journalTurn.run(() => journal.recycle(head.start.firstLive, keep));
    await this.#storeIndexes(head.lastSeq);
  }

  /** A snapshot may take long, too. What is there of it is removed. */
  async *#untilClosing(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      if (this.#isClosing) throw new Error('the store is closing');
      yield piece;
    }
  }

  /**
   * Keeps the indexes, so that the next opening need not read all documents. While some are being built, the former file stays: it says up
   * to where it is right. A full disk is no failure: the file is worth nothing but time.
   */
  async #storeIndexes(asOf: number): Promise<void> {
    const { disk, directory, cipher, project } = this.#options;
    const path = join(directory, INDEX_FILE);
    const whole = this.#indexes.whole;
    if (whole === undefined) return;
    const state = `${asOf} ${cipher.version} ${this.#indexes.builds}`;
    if (state === this.#storedIndexes) return;
    if (whole.length > 0)
      await replaceFile(
        disk,
        join(directory, 'tmp'),
        path,
        encodeIndexes(project, cipher, asOf, whole),
      ).catch((error: unknown) => {
        if (!hasCode(error, 'disk_full')) throw error;
      });
    else if (this.#hasIndexFile) await disk.remove(path);
    this.#hasIndexFile = whole.length > 0;
    this.#storedIndexes = state;
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.onFailure(error);
  }
}

/**
 * What a write adds to its document's bytes in a frame, at most: an id of 512 bytes in the record, escaped in the text and
 * escaped in the answer of an idempotency key, and names, numbers and times. So what is counted bounds what is written.
 */
const RECORD_OVERHEAD_BYTES = 4_096;

function listed(
  document: StoredDocument | undefined,
  { createdSeq }: ListedPlace,
): ListedDocument | undefined {
  return document && { ...document, position: createdSeq };
}

function onlyDeletes({ writes, reseals }: Waiting): boolean {
  return reseals.length === 0 && writes.every(({ kind }) => kind === 'delete');
}

function sealsOf({ writes, reseals }: Waiting): number {
  return reseals.length + writes.filter(({ kind }) => kind === 'put').length;
}

function bytesOf(write: Write): number {
  return RECORD_OVERHEAD_BYTES + (write.kind === 'put' ? write.content.bytes.length : 0);
}
