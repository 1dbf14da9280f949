import { AppError } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import type { DocumentRef } from '../../crypto/stored-text.ts';
import type { OwnWork } from '../../work/work.ts';
import { CommitNotifier } from '../commit-notifier.ts';
import { admit } from '../commit-plan.ts';
import { DEFINITIONS } from '../definition.ts';
import type { EngineIndexes } from '../index-port.ts';
import type {
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListQuery,
  Position,
  ProjectStore,
  SealedPage,
  SealedPageLimits,
  StoredDocument,
  Write,
  WriteResult,
} from '../port.ts';
import type { DatedHead } from '../projects.ts';
import type { Quota } from '../quota.ts';
import type { SealLimits } from '../seal-budget.ts';
import type { CommittingProject } from './commit/attempt.ts';
import type { GroupCommitter } from './commit/group-commit.ts';
import { MustReopen, ProjectGone } from './commit/must-reopen.ts';
import type { QueuedCommit } from './commit/plan-commits.ts';
import type { CommitChannel } from './commit-notifications.ts';
import type { Database, Transaction } from './database/database.ts';
import { searchedTokens } from './indexes/blind-index.ts';
import { BlindIndexing } from './indexes/blind-indexing.ts';
import { indexChanged, RowReader } from './reads/row-reader.ts';
import type { SharedReads } from './reads/shared-reads.ts';
import type { KnownState, SharedStates } from './reads/shared-states.ts';
import { RowCipher, VersionUnknown } from './rows/row-cipher.ts';
import { SealCounter } from './rows/seal-counter.ts';
import { Upkeep } from './upkeep.ts';

export interface PostgresStoreOptions {
  readonly project: string;
  readonly database: Database;
  /** Reads of all projects of this node. */
  readonly reads: SharedReads;
  /** Says of all projects of this node whether definitions have changed, where upkeep asks for that. */
  readonly states?: SharedStates | undefined;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly sealLimits: Pick<SealLimits, 'rotateAt' | 'max'>;
  /** Of all projects of the node. */
  readonly committer: GroupCommitter;
  /** Of the commits of all nodes. */
  readonly news: CommitChannel;
  /** Told of every document whose row does not open, by its (opaque) name. */
  readonly onIntegrityError: (name: string) => void;
  /** Called with the reason why the store must be opened again. */
  readonly onFailure: (error: unknown) => void;
  /** The error for callers once the project is gone. */
  readonly whyGone: () => Promise<AppError>;
  /** Told, now and then, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
  readonly quota?: Quota | undefined;
  /** Work of the service itself for the project; by itself when it is absent. */
  readonly ownWork?: OwnWork;
}

/**
 * How long it may be believed that a project has no definitions: short beside the second in which upkeep
 * notices a new one.
 */
const HEAD_RECENT_MS = 200;
/** How often a store that is written to forgets what is old, milliseconds. */
const PRUNE_EVERY_MS = 3_600_000;

/**
 * A project in PostgreSQL, which other nodes read and write too. The node's committer puts its commits into
 * transactions, those that wait together with those of other projects.
 *
 * `failed` tells of nothing but a new version of the key, or that the project is gone: what is unknown about
 * a commit is found out.
 *
 * One class, because it has the members of its port; reader, committer, indexing and upkeep do the work.
 */
export class PostgresStore implements ProjectStore {
  readonly isShared = true;
  readonly #options: PostgresStoreOptions;
  readonly #rows: RowCipher;
  readonly #reader: RowReader;
  readonly #indexing: BlindIndexing;
  readonly #upkeep: Upkeep;
  readonly #committing: CommittingProject;
  /** Commits that are not answered yet. */
  readonly #commits = new Set<Promise<unknown>>();
  readonly #waiters = new CommitNotifier();
  #waitingBytes = 0;
  #pruning: Promise<void> | undefined;
  #failed = false;
  /** The latest commit that this node has heard of; there may be later ones. */
  #heardOf: Position = 0;
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
    this.#indexing = new BlindIndexing({ ...options, list, watched }, rows);
    const seals = new SealCounter({ ...options, limits: options.sealLimits }, rows);
    this.#upkeep = new Upkeep(options, rows, seals);
    const { quota, onIntegrityError } = options;
    this.#committing = {
      ...{ project, cipher, clock, quota, onIntegrityError, rows, seals, names: new Map() },
      indexesAsOf: (version: number, transaction: Transaction) => this.#indexing.asOf(version, transaction),
      committed: (seq) => this.#committed(seq),
      refused: (commits, error) => void this.#refuse(commits, error),
    };
    this.#prunedMs = clock.monotonic();
  }

  /**
   * Loads what the store must know before it is used.
   *
   * @param head what the project's rows said a moment ago, if they were read: most projects need nothing
   * else. Definitions are read where that moment is too long ago, since another node may have made one.
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
    const { collection, found } = query;
    if (found === undefined) return this.#watched(this.#reader.list(query));
    const index = this.#indexing.find(collection, found.index);
    if (index === undefined) throw indexChanged();
    const tokens = searchedTokens(index, found.keys, this.#rows);
    return this.#watched(this.#reader.list(query, { id: index.id, tokens }));
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
    if (this.#heardOf > after) return this.#heardOf;
    const stop = new AbortController();
    // Before it is looked, so that nothing falls between.
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

  get pendingReencryption(): number {
    return this.#upkeep.pendingReencryption;
  }

  reseal(limit: number): Promise<number> {
    return this.#watched(this.#upkeep.reseal(limit));
  }

  checkpoint(): Promise<void> {
    return this.#upkeep.prune();
  }

  /** A project that was only read costs nothing to close. */
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
      return await done.promise;
    } finally {
      this.#commits.delete(done.promise);
      this.#waitingBytes -= bytes;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#waiters.end();
    this.#unwatch();
    if (this.#state !== undefined) this.#options.states?.delete(this.#state);
    await this.#indexing.stop();
    await Promise.allSettled(this.#commits);
    await this.#pruning;
    this.#options.committer.leave(this.#committing);
  }

  #committed(seq: Position): void {
    this.#options.news.committed(this.#options.project, seq);
    this.#heard(seq);
    this.#pruneNowAndThen();
  }

  /** Answers commits of which nothing has taken effect. Never rejects. */
  async #refuse(commits: readonly QueuedCommit[], error: unknown): Promise<void> {
    const told = await this.#toldOf(error);
    for (const { done } of commits) done.reject(told);
  }

  #pruneNowAndThen(): void {
    const nowMs = this.#options.clock.monotonic();
    if (nowMs - this.#prunedMs < PRUNE_EVERY_MS) return;
    this.#prunedMs = nowMs;
    // Nobody waits for it, and the next one comes.
    this.#pruning = this.#upkeep.prune().catch(() => undefined);
  }

  readonly #onCommit = (position: Position): void => {
    this.#heard(position);
    if (this.#waiters.isEmpty) this.#unwatch();
  };

  #heard(position: Position): void {
    this.#heardOf = Math.max(this.#heardOf, position);
    if (!this.#waiters.isEmpty) this.#waiters.committed(this.#heardOf);
  }

  #unwatch(): void {
    if (this.#isWatching) this.#options.news.unwatch(this.#options.project, this.#onCommit);
    this.#isWatching = false;
  }

  async #watched<T>(reading: Promise<T>): Promise<T> {
    try {
      return await reading;
    } catch (error) {
      throw await this.#toldOf(error);
    }
  }

  /** The error for the caller. After some errors the store must be opened again. */
  async #toldOf(error: unknown): Promise<unknown> {
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
