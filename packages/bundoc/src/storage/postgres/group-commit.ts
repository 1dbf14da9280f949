import type { Clock } from '@bundoc/shared/clock';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { v7 as uuidv7 } from 'uuid';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import type { Quota } from '../quota.ts';
import type { BlindIndexes } from './blind-index.ts';
import { type Database, OutcomeUnknown, type Row, type Transaction } from './database.ts';
import { type DecidedGroup, decide, draftsOf, type Waiting } from './decide.ts';
import { IndexingOfGroup } from './group-indexing.ts';
import { type SealedNames, writeOfGroup } from './group-rows.ts';
import { beginCommit, knownOf } from './known.ts';
import { MustReopen, ProjectGone } from './must-reopen.ts';
import { Patience } from './patience.ts';
import type { RowCipher } from './row-cipher.ts';
import type { SharedSeals } from './shared-seals.ts';

export interface GroupCommitOptions {
  readonly project: string;
  readonly database: Database;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly onIntegrityError: (name: string) => void;
  readonly quota?: Quota | undefined;
}

/** The blind indexes of a version of them, under the project's lock. */
export type IndexesAsOf = (version: number, transaction: Transaction) => Promise<BlindIndexes>;

/** Places in the order of commits have 48 bits; a group takes fewer than are left behind this. */
const SEQ_MAX = 2 ** 48 - 2 ** 20;

/**
 * Commits groups of one node, each in one transaction that locks the project's row: `seq` is the order of commits of all nodes, and
 * whoever sees one sees all before it. When the connection breaks at the commit, its outcome is looked up by an id that the transaction wrote.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions;
  readonly #rows: RowCipher;
  readonly #seals: SharedSeals;
  readonly #indexesAsOf: IndexesAsOf;
  readonly #names: SealedNames = new Map();

  constructor(options: GroupCommitOptions, rows: RowCipher, seals: SharedSeals, indexesAsOf: IndexesAsOf) {
    this.#indexesAsOf = indexesAsOf;
    this.#options = options;
    this.#rows = rows;
    this.#seals = seals;
  }

  /**
   * Commits a group, or as many from its beginning as one transaction may hold, once. While the server cannot serve, it is tried again for as long as a caller may be kept waiting.
   *
   * @returns what was decided, and has taken effect.
   * @throws MustReopen, VersionUnknown, and AppError of the storage: `storage_unavailable` when the outcome stayed unknown, too.
   */
  async commit(group: readonly Waiting[]): Promise<DecidedGroup> {
    const patience = new Patience(this.#options.clock);
    for (;;) {
      const attempt = new Attempt(uuidv7());
      try {
        return await this.#attempt(group, attempt);
      } catch (error) {
        if (error instanceof OutcomeUnknown) {
          if (await this.#tookEffect(attempt.id)) return attempt.decided;
        } else if (!hasCode(error, 'storage_unavailable')) throw error;
        await patience.wait(unavailable(error));
      }
    }
  }

  async #attempt(group: readonly Waiting[], attempt: Attempt): Promise<DecidedGroup> {
    const { database, project, quota } = this.#options;
    const writes = group.reduce((sum, { writes: own }) => sum + own.length, 0);
    await this.#seals.take(writes);
    const begin = beginCommit(project, group, this.#rows, quota !== undefined);
    await database.transaction(begin, async (transaction, [head, states = [], ...others]) => {
      const usage = quota && others.pop()?.[0];
      const [used = []] = others;
      const [seq, indexVersion] = this.#headOf(head?.[0]);
      const known = knownOf(group, { seq, states, used, usage }, { ...this.#options, rows: this.#rows });
      const indexing = new IndexingOfGroup(await this.#indexesAsOf(indexVersion, transaction), this.#rows);
      await indexing.countFormer(transaction, project, known.states);
      const drafts = draftsOf(group, this.#options.clock);
      let decided: DecidedGroup;
      do decided = decide(group, known, drafts, { ...this.#options, indexing });
      while (await indexing.lookUp(transaction, project, writes));
      attempt.decided = decided;
      // Nothing but refusals and repetitions: there is nothing to commit.
      if (decided.seq === seq && decided.usedKeys.length === 0) return undefined;
      const ciphers = { cipher: this.#options.cipher, rows: this.#rows, names: this.#names };
      const { statement, values } = writeOfGroup(decided, { project, commitId: attempt.id }, ciphers);
      await transaction.last(statement, values);
      return true;
    });
    return attempt.decided;
  }

  /** @throws MustReopen unless the project is there and no later version of its key is in use. */
  #headOf(head: Row | undefined): readonly [seq: number, indexVersion: number] {
    if (head === undefined) throw new ProjectGone('the project is not there any more');
    const [seq, keyVersion, indexVersion] = head as unknown as [number, number, number];
    // Not sealed, so that anything may stand there.
    if (!Number.isInteger(seq) || seq < 0 || seq > SEQ_MAX)
      throw new AppError('integrity_error', {
        cause: new Error(`heads.seq is ${seq}, which is no place of a commit`),
      });
    if (keyVersion > this.#options.cipher.version)
      throw new MustReopen('another node has brought in a new version of the key');
    return [seq, indexVersion];
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
        return (
          (await database.transaction(lookUp, async (_transaction, [, , count]) => count?.[0]?.[0])) === 1
        );
      } catch (error) {
        if (!(error instanceof OutcomeUnknown || hasCode(error, 'storage_unavailable'))) throw error;
        await patience.wait(unavailable(error));
      }
    }
  }
}

/** One try of a group, with what was decided once that is so: a commit that is looked up had been. */
class Attempt {
  readonly id: string;
  #decided: DecidedGroup | undefined;

  constructor(id: string) {
    this.id = id;
  }

  get decided(): DecidedGroup {
    if (this.#decided === undefined)
      throw new Error('a transaction was committed that nothing was decided in');
    return this.#decided;
  }

  set decided(decided: DecidedGroup) {
    this.#decided = decided;
  }
}

function unavailable(cause: unknown): AppError {
  return new AppError('storage_unavailable', { cause, retryAfterS: 1 });
}
