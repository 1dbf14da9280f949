import { hasCode } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { DocumentRef } from '../crypto/stored-text.ts';
import { DEFINITIONS, type StoredDefinition } from '../engine/port/definition.ts';
import { definitionsState } from '../engine/port/definitions-state.ts';
import type { EngineIndexes } from '../engine/port/index-port.ts';
import type {
  Awaitable,
  Change,
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListQuery,
  MovableStore,
  Position,
  Precondition,
  ProjectStore,
  Resealed,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
  Write,
  WriteResult,
} from '../engine/port/port.ts';
import type { SnapshotOptions, StoreSnapshot } from '../engine/port/snapshot-port.ts';
import { ownWork } from '../work/scheduler.ts';
import type { OwnWork, Work } from '../work/work.ts';
import { AliveSnapshot, aliveAt, type IsAlive, listAlive } from './alive-documents.ts';
import { type DroppedDocuments, dropDocuments } from './drop-documents.ts';
import { ExpirySweep } from './expiry-sweep.ts';
import { KnownDefinitions } from './known-definitions.ts';
import type { CollectionStore } from './port.ts';
import { removeStates } from './remove-states.ts';

/**
 * Opens the definitions of a project's collections. The result owns the store from then on.
 *
 * @param beforeExpiring called before a definition gives documents a time to live; when it rejects, the
 *   definition is not made.
 * @param own runs the service's own work for the project.
 */
export async function openDefinedStore(
  store: ProjectStore,
  clock: Clock,
  beforeExpiring: () => Promise<void> = async () => undefined,
  own: OwnWork = ownWork(),
): Promise<DefinedStore> {
  const defined = new DefinedStore(store, clock, beforeExpiring, own);
  if (store.definesNothing !== true) await defined.load();
  return defined;
}

/**
 * A store that enforces definitions of collections. Written documents must match their schema, expired
 * documents are absent, and the definitions are hidden although they are documents of the store.
 *
 * Works on any store. Each store has one instance, so its view of the definitions is always current. A
 * collection without a definition costs one lookup in a map.
 */
export class DefinedStore implements CollectionStore {
  readonly #store: ProjectStore;
  readonly #clock: Clock;
  readonly #ownWork: OwnWork;
  readonly #definitions: KnownDefinitions;
  /** Removes expired documents from the storage. Readers do not see them even before that. */
  readonly expired: ExpirySweep;

  constructor(store: ProjectStore, clock: Clock, beforeExpiring: () => Promise<void>, own: OwnWork) {
    this.#store = store;
    this.#clock = clock;
    this.#ownWork = own;
    this.#definitions = new KnownDefinitions(store, own, beforeExpiring);
    this.expired = new ExpirySweep(store, clock, own, () => this.#definitions.ttls());
  }

  /**
   * Reads all definitions and applies their indexes. Called first, and again when other nodes may have
   * changed them.
   */
  load(): Promise<void> {
    return this.#definitions.load();
  }

  /**
   * The definitions and indexes that this store works with; undefined while some definition is unreadable.
   */
  get definitionsState(): string | undefined {
    const { digest } = this.#definitions;
    return digest && definitionsState(this.#store.indexes?.version ?? 0, digest);
  }

  dropDocuments(collection: string, work: Work): Promise<DroppedDocuments> {
    return dropDocuments(this.#store, collection, work);
  }

  get indexes(): EngineIndexes | undefined {
    return this.#store.indexes;
  }

  get isShared(): boolean {
    return this.#store.isShared === true;
  }

  get failed(): boolean {
    return this.#store.failed;
  }

  get pendingReencryption(): number {
    return this.#store.pendingReencryption;
  }

  get memoryBytes(): number {
    return (this.#store.memoryBytes ?? 0) + this.#definitions.memoryBytes;
  }

  get defined(): readonly string[] {
    return this.#definitions.names;
  }

  /** Whether any collection is defined with a time to live. */
  get mayExpire(): boolean {
    return this.#definitions.ttls().some(() => true);
  }

  definition(collection: string): StoredDefinition | undefined {
    return this.#definitions.of(collection);
  }

  define(
    collection: string,
    definition: CollectionDefinition | undefined,
    precondition: Precondition,
    options: CommitOptions = {},
  ): Promise<{ created: boolean; rev: string | undefined }> {
    return this.#definitions.define(collection, definition, precondition, options);
  }

  getSync(ref: DocumentRef): StoredDocument | undefined {
    const document = this.#store.getSync?.(ref);
    const isAlive = this.#aliveIn(ref.collection);
    return document === undefined || isAlive?.(document) === false ? undefined : document;
  }

  get(ref: DocumentRef): Awaitable<StoredDocument | undefined> {
    const isAlive = this.#aliveIn(ref.collection);
    const found = this.#store.get(ref);
    if (isAlive === undefined) return found;
    const unlessExpired = (document: StoredDocument | undefined) =>
      document && isAlive(document) ? document : undefined;
    return found instanceof Promise ? found.then(unlessExpired) : unlessExpired(found);
  }

  async commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    if (!this.#definitions.isEmpty) {
      await this.#definitions.schemas.require(writes, options);
      await this.#removeExpired(writes);
      if (options.work !== undefined && isLong(writes))
        await this.#store.indexes?.prepare?.(writes, options.work);
    }
    return this.#store.commit(writes, options);
  }

  async list(query: ListQuery): Promise<DocumentPage> {
    const isAlive = this.#aliveIn(query.collection);
    if (isAlive === undefined) return this.#store.list(query);
    return await listAlive(query, (one) => this.#store.list(one), isAlive, this.#ownWork);
  }

  snapshot(collection: string, options: SnapshotOptions = {}): Awaitable<StoreSnapshot> {
    const { expiryAtMs = this.#clock.now() } = options;
    const isAlive = this.#aliveIn(collection, () => expiryAtMs);
    const taken = this.#store.snapshot(collection, options);
    if (isAlive === undefined) return taken;
    const alive = (snapshot: StoreSnapshot) =>
      new AliveSnapshot(snapshot, { expiryAtMs, isAlive, own: this.#ownWork });
    return taken instanceof Promise ? taken.then(alive) : alive(taken);
  }

  async changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage> {
    const changes: Change[] = [];
    for (let from = after, known = horizon; ; ) {
      const wanted = limit - changes.length;
      const page: ChangePage = await this.#store.changes(from, wanted, known);
      for (const change of page.changes) if (change.ref.collection !== DEFINITIONS) changes.push(change);
      if (page.changes.length < wanted || changes.length === limit) return { ...page, changes };
      from = page.position;
      known = page.horizon;
    }
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    return (await this.#store.collections()).filter(({ name }) => name !== DEFINITIONS);
  }

  position(): Promise<Position> {
    return this.#store.position();
  }

  waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    return this.#store.waitForChange(after, signal);
  }

  get movable(): MovableStore | undefined {
    return this.#store.movable;
  }

  /** Includes definitions. */
  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage> {
    return this.#store.sealedChanges(after, limits);
  }

  reseal(limit: number): Promise<Resealed> {
    return this.#store.reseal(limit);
  }

  checkpoint(): Promise<void> {
    return this.#store.checkpoint();
  }

  async prepareClose(): Promise<void> {
    await this.#store.prepareClose?.();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#store[Symbol.asyncDispose]();
  }

  /** Undefined for a collection whose documents do not expire. @param nowMs the present by default. */
  #aliveIn(collection: string, nowMs: () => number = () => this.#clock.now()): IsAlive | undefined {
    const ttl = this.#definitions.of(collection)?.definition.ttl;
    return ttl && aliveAt(ttl, nowMs);
  }

  /** Writers must not see an expired document, so the store must not have it either. */
  async #removeExpired(writes: readonly Write[]): Promise<void> {
    for (const { ref } of writes) {
      const isAlive = this.#aliveIn(ref.collection);
      if (isAlive === undefined) continue;
      const document = await Promise.resolve(this.#store.get(ref)).catch(ignoreDamage);
      if (document !== undefined && !isAlive(document)) await removeStates(this.#store, [document]);
    }
  }
}

/** Bytes of documents up to which a commit computes its index keys while it is put in order. */
const KEYS_AT_ONCE_BYTES = 16_384;

function isLong(writes: readonly Write[]): boolean {
  let bytes = 0;
  for (const write of writes) if (write.kind === 'put') bytes += write.content.bytes.length;
  return bytes > KEYS_AT_ONCE_BYTES;
}

/** An unreadable document can be replaced and deleted; whether it has expired is unknown. */
function ignoreDamage(error: unknown): undefined {
  if (!hasCode(error, 'integrity_error')) throw error;
}
