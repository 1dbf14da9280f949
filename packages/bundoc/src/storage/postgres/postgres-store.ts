import { OpenError } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { v7 as uuidv7 } from 'uuid';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import type { DocumentRef } from '../../cipher/stored-text.ts';
import { COMMITS_WAITING_MAX } from '../embedded/embedded-store.ts';
import { FRAME_BYTES_MAX } from '../embedded/frame.ts';
import type { SealLimits } from '../embedded/seal-budget.ts';
import type {
  ChangePage,
  CollectionSummary,
  CommitOptions,
  DocumentPage,
  ListQuery,
  Position,
  ProjectStore,
  StoredDocument,
  Write,
  WriteResult,
} from '../port.ts';
import { type Database, OutcomeUnknown } from './database.ts';
import { type DecidedGroup, decide, type Waiting } from './decide.ts';
import { rowsOfGroup, type SealedNames, WRITE_GROUP } from './group-rows.ts';
import { beginCommit, knownOf } from './known.ts';
import { Patience } from './patience.ts';
import { Reader } from './reader.ts';
import { RowCipher, VersionUnknown } from './row-cipher.ts';
import { SharedSeals } from './shared-seals.ts';
import { Upkeep } from './upkeep.ts';

export interface PostgresStoreOptions {
  readonly project: string;
  readonly database: Database;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly sealLimits: SealLimits;
  /** Told of every document whose row does not open, by its (opaque) name. */
  readonly onIntegrityError: (name: string) => void;
  /** Told why the store must be opened anew. */
  readonly onFailure: (error: unknown) => void;
  /** Told, now and then, that the key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** Writes of one transaction. */
const GROUP_WRITES_MAX = 1_024;
/** What a write adds to its document's bytes: names, the sealed state, the answer of an idempotency key. */
const ROW_OVERHEAD_BYTES = 4_096;

/** A store is of no use any more: the project was given a new key version, or is gone. */
class MustReopen extends Error {
  override readonly name = 'MustReopen';
}

/**
 * A project in PostgreSQL, which other nodes read and write too.
 *
 * Commits that wait go together into one transaction, which locks the project's row, so that `seq` is the order of commits of all nodes
 * and whoever sees one sees all before it. A node has one such transaction of a project under way. When the connection breaks at its
 * commit, the outcome is looked up by an id that the transaction wrote.
 */
export class PostgresStore implements ProjectStore {
  readonly #options: PostgresStoreOptions;
  readonly #rows: RowCipher;
  readonly #reader: Reader;
  readonly #upkeep: Upkeep;
  readonly #seals: SharedSeals;
  readonly #waiting: Waiting[] = [];
  readonly #names: SealedNames = new Map();
  #waitingBytes = 0;
  #pumping: Promise<void> | undefined;
  #failed = false;

  constructor(options: PostgresStoreOptions) {
    const { project, cipher } = options;
    this.#options = options;
    this.#rows = new RowCipher(project, cipher);
    this.#reader = new Reader(options, this.#rows);
    this.#seals = new SharedSeals({ ...options, version: cipher.version, limits: options.sealLimits });
    this.#upkeep = new Upkeep(options, this.#rows, this.#seals);
  }

  /** Loads what the store must know before it is used. */
  async begin(): Promise<this> {
    await this.#upkeep.begin();
    return this;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    return this.#watched(this.#reader.get(ref));
  }

  list(query: ListQuery): Promise<DocumentPage> {
    return this.#watched(this.#reader.list(query));
  }

  changes(after: Position, limit: number, horizon: Position = 0): Promise<ChangePage> {
    return this.#watched(this.#reader.changes(after, limit, horizon));
  }

  collections(): Promise<readonly CollectionSummary[]> {
    return this.#watched(this.#reader.collections());
  }

  get toReseal(): number {
    return this.#upkeep.toReseal;
  }

  reseal(limit: number): Promise<number> {
    return this.#watched(this.#upkeep.reseal(limit));
  }

  async checkpoint(): Promise<void> {
    await this.#upkeep.prune();
    await this.#seals.settle();
  }

  commit(writes: readonly Write[], options: CommitOptions = {}): Promise<readonly WriteResult[]> {
    const bytes = writes.reduce((sum, write) => sum + bytesOf(write), 0);
    if (bytes > FRAME_BYTES_MAX) return Promise.reject(new AppError('payload_too_large'));
    if (this.#waiting.length >= COMMITS_WAITING_MAX || this.#waitingBytes > 2 * FRAME_BYTES_MAX)
      return Promise.reject(new AppError('overloaded'));
    const names = writes.map(({ ref }) => this.#options.cipher.fileName(ref));
    const done = Promise.withResolvers<readonly WriteResult[]>();
    this.#waiting.push({ writes, names, options, bytes, done });
    this.#waitingBytes += bytes;
    this.#pumping ??= this.#pump();
    return done.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pumping;
    await this.#seals.settle().catch(() => undefined);
  }

  /** Commits what waits, a group at a time, until nothing does. Never rejects. */
  async #pump(): Promise<void> {
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      try {
        for (const answer of await this.#commitGroup(group)) answer();
      } catch (error) {
        for (const { done } of group) done.reject(error);
      }
    }
    this.#pumping = undefined;
  }

  #takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    let bytes = 0;
    let writes = 0;
    for (const waiting of this.#waiting) {
      const isFull =
        bytes + waiting.bytes > FRAME_BYTES_MAX || writes + waiting.writes.length > GROUP_WRITES_MAX;
      if (group.length > 0 && isFull) break;
      bytes += waiting.bytes;
      writes += waiting.writes.length;
      group.push(waiting);
    }
    this.#waiting.splice(0, group.length);
    this.#waitingBytes -= bytes;
    return group;
  }

  /**
   * Commits a group, once. While the server cannot serve, it is tried again for as long as a caller may be kept waiting.
   *
   * @returns what to do to answer each.
   */
  async #commitGroup(group: readonly Waiting[]): Promise<readonly (() => void)[]> {
    const patience = new Patience(this.#options.clock);
    for (;;) {
      const commitId = uuidv7();
      let decided: DecidedGroup | undefined;
      try {
        await this.#attempt(group, commitId, (value) => {
          decided = value;
        });
        return decided?.answers ?? [];
      } catch (error) {
        if (error instanceof OutcomeUnknown) {
          if (await this.#tookEffect(commitId)) return decided?.answers ?? [];
        } else if (!hasCode(error, 'storage_unavailable') || this.#failed) {
          throw this.#told(error);
        }
        await patience.wait(unavailable(error));
      }
    }
  }

  async #attempt(
    group: readonly Waiting[],
    commitId: string,
    onDecided: (decided: DecidedGroup) => void,
  ): Promise<void> {
    if (this.#failed) throw new AppError('storage_unavailable');
    const { database, project, cipher } = this.#options;
    await this.#seals.take(group.reduce((sum, { writes }) => sum + writes.length, 0));
    const begin = beginCommit(project, group, this.#rows);
    await database.transaction(begin, async (transaction, [head, states = [], used = []]) => {
      this.#requireCurrent(head?.[0]);
      const read = { seq: head?.[0]?.[0] as number, states, used };
      const known = knownOf(group, read, { ...this.#options, rows: this.#rows });
      const decided = decide(group, known, this.#options);
      onDecided(decided);
      if (decided.seq === known.seq && decided.usedKeys.length === 0) return undefined;
      const values = rowsOfGroup(
        decided,
        { project, commitId },
        { cipher, rows: this.#rows, names: this.#names },
      );
      await transaction.query(WRITE_GROUP, values);
      return true;
    });
  }

  /** @throws MustReopen unless the project is there and no later version of its key is in use. */
  #requireCurrent(head: readonly unknown[] | undefined): void {
    if (head === undefined) throw new MustReopen('the project is not there any more');
    if ((head[1] as number) > this.#options.cipher.version)
      throw new MustReopen('another node has brought in a new version of the key');
  }

  /**
   * Whether a transaction took effect whose connection broke. It held the project's lock to its end, so that under this lock its outcome
   * stands; and what is written here is durable on a standby only behind it.
   *
   * @throws AppError `storage_unavailable` when that cannot be found out in time.
   */
  async #tookEffect(commitId: string): Promise<boolean> {
    const { database, project, clock } = this.#options;
    const patience = new Patience(clock);
    const lookUp = `SELECT seq FROM bundoc.heads WHERE project = '${project}' FOR UPDATE;
      UPDATE bundoc.heads SET seq = seq WHERE project = '${project}';
      SELECT count(*) FROM bundoc.commits WHERE project = '${project}' AND id = '${commitId}'`;
    for (;;) {
      try {
        const found = await database.transaction(lookUp, async (_transaction, [, , count]) =>
          Number(count?.[0]?.[0]),
        );
        return found === 1;
      } catch (error) {
        if (!(error instanceof OutcomeUnknown || hasCode(error, 'storage_unavailable'))) throw error;
        await patience.wait(unavailable(error));
      }
    }
  }

  async #watched<T>(reading: Promise<T>): Promise<T> {
    try {
      return await reading;
    } catch (error) {
      throw this.#told(error);
    }
  }

  /** What the caller is told. After some errors the store must be opened anew. */
  #told(error: unknown): unknown {
    if (error instanceof OpenError) return new AppError('integrity_error', { cause: error });
    if (!(error instanceof MustReopen || error instanceof VersionUnknown)) return error;
    if (!this.#failed) {
      this.#failed = true;
      this.#options.onFailure(error);
    }
    return unavailable(error);
  }
}

function unavailable(cause: unknown): AppError {
  return new AppError('storage_unavailable', { cause, retryAfterS: 1 });
}

function bytesOf(write: Write): number {
  return ROW_OVERHEAD_BYTES + (write.kind === 'put' ? write.content.bytes.length : 0);
}
