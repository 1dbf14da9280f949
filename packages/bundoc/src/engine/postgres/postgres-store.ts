import { AppError } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import type { DocumentRef } from '../../crypto/stored-text.ts';
import { ownWork } from '../../work/scheduler.ts';
import type { OwnWork } from '../../work/work.ts';
import { CommitNotifier } from '../commit/commit-notifier.ts';
import { admit } from '../commit/commit-plan.ts';
import type { Quota } from '../commit/quota.ts';
import { DEFINITIONS } from '../port/definition.ts';
import type { EngineIndexes } from '../port/index-port.ts';
import type {
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListQuery,
  Position,
  ProjectStore,
  Resealed,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
  Write,
  WriteResult,
} from '../port/port.ts';
import type { SealLimits } from '../port/seal-budget.ts';
import type { SnapshotOptions } from '../port/snapshot-port.ts';
import type { DatedHead } from '../projects/projects.ts';
import type { CommittingProject } from './commit/attempt.ts';
import type { GroupCommitter } from './commit/group-commit.ts';
import { MustReopen, ProjectGone } from './commit/must-reopen.ts';
import type { QueuedCommit } from './commit/plan-commits.ts';
import type { CommitChannel } from './commit-polls.ts';
import type { Database, Transaction } from './database/database.ts';
import { IndexKeeper } from './indexes/index-keeper.ts';
import type { OrderSizes } from './indexes/runs-worker.ts';
import { RowReader } from './reads/row-reader.ts';
import type { SharedReads } from './reads/shared-reads.ts';
import type { KnownState, SharedStates } from './reads/shared-states.ts';
import { RowCipher, VersionUnknown } from './rows/row-cipher.ts';
import { SealCounter } from './rows/seal-counter.ts';
import { PostgresSnapshot, type SnapshotPorts } from './snapshots/postgres-snapshot.ts';
import type { SnapshotConnections } from './snapshots/snapshot-connections.ts';
import { Upkeep } from './upkeep.ts';

export interface PostgresStoreOptions {
  readonly project: string;
  readonly database: Database;
  /** Shared by all projects of this node. */
  readonly reads: SharedReads;
  /** Shared by all projects of this node. */
  readonly snapshots: SnapshotConnections;
  /** Tells for all projects of this node whether definitions have changed; for upkeep. */
  readonly states?: SharedStates | undefined;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly sealLimits: SealLimits;
  /** Shared by all projects of this node. */
  readonly committer: GroupCommitter;
  /** Tells of commits by other nodes. */
  readonly news: CommitChannel;
  /** Called with the opaque name of every undecryptable document. */
  readonly onIntegrityError: (name: string) => void;
  /** Called with the reason why the store must be reopened. */
  readonly onFailure: (error: unknown) => void;
  /** The error for callers once the project is gone. */
  readonly whyGone: () => Promise<AppError>;
  /** Called repeatedly once the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly quota?: Quota | undefined;
  /** Runs the service's own work for the project; unscheduled when absent. */
  readonly ownWork?: OwnWork;
  /** Of indexes; smaller in tests. */
  readonly orderSizes?: OrderSizes;
}

/**
 * How long a read of "no definitions" is trusted. It is much shorter than the second in which upkeep detects
 * a new definition.
 */
const HEAD_RECENT_MS = 200;
/** Interval at which a store with writes removes old rows, milliseconds. */
const PRUNE_EVERY_MS = 3_600_000;

/**
 * A project in PostgreSQL, which other nodes also read and write. The node's committer combines waiting
 * commits of all projects into transactions.
 *
 * `failed` only means that the key has a new version or the project is gone: an unknown outcome of a commit
 * is resolved.
 *
 * One class, because it has the members of its port; reader, committer, indexing and upkeep do the work.
 */
export class PostgresStore implements ProjectStore {
  readonly isShared = true;
  readonly #options: PostgresStoreOptions;
  readonly #rows: RowCipher;
  readonly #reader: RowReader;
  readonly #snapshots: SnapshotPorts;
  readonly #indexing: IndexKeeper;
  readonly #upkeep: Upkeep;
  readonly #committing: CommittingProject;
  /** Unanswered commits. */
  readonly #commits = new Set<Promise<unknown>>();
  readonly #waiters = new CommitNotifier();
  #waitingBytes = 0;
  #pruning: Promise<void> | undefined;
  #failed = false;
  /** The latest commit that this node knows of; there may be later ones. */
  #latestKnown: Position = 0;
  #isWatching = false;
  #wasWritten = false;
  #prunedMs: number;
  #state: KnownState | undefined;
  #definesNothing = false;

  constructor(options: PostgresStoreOptions) {
    const { project, cipher, clock } = options;
    const rows = new RowCipher(project, cipher);
    this.#options = options;
    this.#rows = rows;
    this.#reader = new RowReader(options, rows);
    const list = (query: ListQuery) => this.#reader.list(query);
    const watched = <T>(work: Promise<T>) => this.#watched(work);
    const own = options.ownWork ?? ownWork(project);
    this.#indexing = new IndexKeeper({ ...options, list, listRows: list, watched, ownWork: own }, rows);
    this.#snapshots = {
      ...options,
      connections: options.snapshots,
      reader: this.#reader,
      ordered: this.#indexing.ordered,
      rows,
      watched,
      open: new Set(),
    };
    const seals = new SealCounter({ ...options, limits: options.sealLimits }, rows);
    this.#upkeep = new Upkeep(options, rows, seals);
    const { quota, onIntegrityError } = options;
    this.#committing = {
      project,
      cipher,
      clock,
      quota,
      onIntegrityError,
      rows,
      seals,
      names: new Map(),
      indexesAsOf: (version: number, transaction: Transaction) => this.#indexing.asOf(version, transaction),
      preparedOf: (content) => this.#indexing.preparedOf(content),
      committed: (seq) => this.#committed(seq),
      refused: (commits, error) => void this.#refuse(commits, error),
    };
    this.#prunedMs = clock.monotonic();
  }

  /**
   * Loads what the store needs before its first use.
   *
   * @param head the project's head, if it was just read: most projects need nothing else. If it is too old,
   *   definitions are read, because another node may have created one.
   */
  async begin(head?: DatedHead): Promise<this> {
    const { project, states, clock } = this.#options;
    const token = this.#rows.collectionToken(DEFINITIONS);
    const isRecent = head !== undefined && clock.monotonic() - head.asOfMs < HEAD_RECENT_MS;
    this.#definesNothing =
      isRecent && head.indexVersion === 0 && head.collections?.has(token.toString('hex')) === false;
    await this.#upkeep.begin(head?.documents);
    if (head?.indexVersion !== 0) await this.#indexing.begin();
    this.#state = states?.add(project, token, this.#definesNothing ? head : undefined);
    return this;
  }

  get definesNothing(): boolean {
    return this.#definesNothing;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    return this.#watched(this.#reader.get(ref));
  }

  async list(query: ListQuery): Promise<DocumentPage> {
    using snapshot = this.snapshot(query.collection);
    return await snapshot.list(query);
  }

  snapshot(collection: string, { asOf, place }: SnapshotOptions = {}): PostgresSnapshot {
    return new PostgresSnapshot(this.#snapshots, {
      collection,
      indexes: this.#indexing.whole(collection),
      asOf,
      place,
    });
  }

  nameOf(ref: DocumentRef): string {
    return this.#options.cipher.fileName(ref);
  }

  get indexes(): EngineIndexes {
    return this.#indexing;
  }

  changes(after: Position, limit: number, horizon: Position = 0): Promise<ChangePage> {
    return this.#watched(this.#reader.changes(after, limit, horizon));
  }

  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage> {
    return this.#watched(this.#reader.sealedChanges(after, limits));
  }

  position(): Promise<Position> {
    return this.#watched(this.#reader.position());
  }

  async waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    if (this.#latestKnown > after) return this.#latestKnown;
    const stop = new AbortController();
    // Registered before the read, so that no commit is missed.
    const news = this.#waiters.wait(after, AbortSignal.any([signal, stop.signal]));
    if (this.#waiters.isEmpty) return news;
    if (!this.#isWatching) this.#options.news.watch(this.#options.project, this.#onCommit);
    this.#isWatching = true;
    try {
      this.#heard(await this.position());
    } catch (error) {
      stop.abort();
      throw error;
    }
    return news;
  }

  collections(): Promise<readonly CollectionSummary[]> {
    return this.#watched(this.#reader.collections());
  }

  /** That of its indexes. */
  get memoryBytes(): number {
    return this.#indexing.ordered.bytes;
  }

  get pendingReencryption(): number {
    return this.#upkeep.pendingReencryption;
  }

  reseal(limit: number): Promise<Resealed> {
    return this.#watched(this.#upkeep.reseal(limit));
  }

  checkpoint(): Promise<void> {
    return this.#upkeep.prune();
  }

  /** A project that was only read is cheap to close. */
  async prepareClose(): Promise<void> {
    if (this.#wasWritten) await this.checkpoint();
  }

  async commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    const bytes = admit(writes, { commits: this.#commits.size, bytes: this.#waitingBytes });
    if (this.#failed) throw new AppError('storage_unavailable', { retryAfterS: 1 });
    this.#wasWritten = true;
    const names = writes.map(({ ref }) => this.#options.cipher.fileName(ref));
    const done = Promise.withResolvers<readonly WriteResult[]>();
    this.#commits.add(done.promise);
    this.#waitingBytes += bytes;
    this.#options.committer.commit(this.#committing, { writes, names, options, bytes, done });
    try {
      const results = await done.promise;
      this.#indexing.wrote(writes);
      return results;
    } finally {
      this.#commits.delete(done.promise);
      this.#waitingBytes -= bytes;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiters.end();
    this.#unwatch();
    for (const snapshot of this.#snapshots.open) snapshot[Symbol.dispose]();
    if (this.#state !== undefined) this.#options.states?.delete(this.#state);
    await this.#indexing.stop();
    await Promise.allSettled(this.#commits);
    await this.#pruning;
    this.#options.committer.leave(this.#committing);
  }

  #committed(seq: Position): void {
    this.#heard(seq);
    this.#pruneNowAndThen();
  }

  /** Answers commits without effect. Never rejects. */
  async #refuse(commits: readonly QueuedCommit[], error: unknown): Promise<void> {
    const told = await this.#errorFor(error);
    for (const { done } of commits) done.reject(told);
  }

  #pruneNowAndThen(): void {
    const nowMs = this.#options.clock.monotonic();
    if (nowMs - this.#prunedMs < PRUNE_EVERY_MS) return;
    this.#prunedMs = nowMs;
    // No caller waits for it, and the next run repeats it.
    this.#pruning = this.#upkeep.prune().catch(() => undefined);
  }

  readonly #onCommit = (position: Position): void => {
    this.#heard(position);
    if (this.#waiters.isEmpty) this.#unwatch();
  };

  #heard(position: Position): void {
    this.#latestKnown = Math.max(this.#latestKnown, position);
    if (!this.#waiters.isEmpty) this.#waiters.committed(this.#latestKnown);
  }

  #unwatch(): void {
    if (this.#isWatching) this.#options.news.unwatch(this.#options.project, this.#onCommit);
    this.#isWatching = false;
  }

  async #watched<T>(reading: Promise<T>): Promise<T> {
    try {
      return await reading;
    } catch (error) {
      throw await this.#errorFor(error);
    }
  }

  /** The error for the caller. After some errors the store must be reopened. */
  async #errorFor(error: unknown): Promise<unknown> {
    if (error instanceof OpenError) return new AppError('integrity_error', { cause: error });
    if (!(error instanceof MustReopen || error instanceof VersionUnknown)) return error;
    if (!this.#failed) {
      this.#failed = true;
      this.#options.onFailure(error);
    }
    if (error instanceof ProjectGone)
      return await this.#options.whyGone().catch((failure: unknown) => failure);
    return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  }
}
