import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { v7 as uuidv7 } from 'uuid';
import { OutcomeUnknown } from '../../errors.ts';
import type { Database, Statement } from '../database/database.ts';
import { isOfStatement } from '../database/database-error.ts';
import { textArray } from '../database/parameters.ts';
import { Backoff } from '../database/retry-unavailable.ts';
import type { CommittingProject, Member, Outcome } from './attempt.ts';
import { Attempt } from './attempt.ts';
import { CommitLanes, type LaneBatch, type Leaving, laneSlots } from './commit-lanes.ts';
import { HEADS_PRESENT } from './load-prestate.ts';
import type { QueuedCommit } from './plan-commits.ts';

/** Turns of the event loop that a transaction waits for more commits. */
const GATHER_TURNS = 2;
/** How often a node that commits removes outcomes that nobody asks for any more, milliseconds. */
const PRUNE_EVERY_MS = 600_000;
/** Outcomes that one statement removes. */
const PRUNED_AT_ONCE = 10_000;

/**
 * An hour is far longer than any node looks an outcome up. Ids begin with the time of the node that made
 * them, so a range of them ends the search early. The server's own time decides.
 */
const PRUNE: Statement = {
  name: 'bundoc-prune-group-commits-1',
  text: `
WITH gone AS (
  DELETE FROM bundoc.group_commits WHERE id = ANY (ARRAY(
    SELECT id FROM bundoc.group_commits
    WHERE id < rpad(lpad(to_hex((extract(epoch FROM now() - interval '1 hour') * 1000)::bigint), 12, '0'), 32, '0')::uuid
      AND at < now() - interval '1 hour'
    ORDER BY id LIMIT ${PRUNED_AT_ONCE} FOR UPDATE SKIP LOCKED
  )) RETURNING 1
)
SELECT count(*) FROM gone`,
};
const LOCK_ANY_HEAD: Statement = {
  name: 'bundoc-lock-any-head-1',
  text: 'SELECT project FROM bundoc.heads WHERE project = ANY ($1::text[]) LIMIT 1 FOR UPDATE SKIP LOCKED',
};
const OUTCOME: Statement = {
  name: 'bundoc-group-outcome-1',
  text: 'SELECT count(*) FROM bundoc.group_commits WHERE id = $1',
};
const PROBE: Statement = {
  name: 'bundoc-group-probe-1',
  text: 'INSERT INTO bundoc.group_commits (id) VALUES ($1)',
};

/**
 * Commits what waits of all projects that are open on this node, many projects a transaction. A transaction
 * locks the heads of its projects, so that `seq` is the order of a project's commits of all nodes, and who
 * sees one sees all before it. It waits for no head while it holds another. A refusal of one project leaves
 * the others.
 *
 * When the connection breaks at the commit, the outcome is looked up by an id that the transaction wrote.
 * Only a transaction that did not take effect is tried again.
 */
export class GroupCommitter {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #lanes: CommitLanes<CommittingProject, QueuedCommit>;
  #isGathering = false;
  #prunedMs: number;

  constructor({ database, clock }: { readonly database: Database; readonly clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
    this.#lanes = new CommitLanes(laneSlots(database.connectionsMax));
    this.#prunedMs = clock.monotonic();
  }

  /**
   * Commits when its turn comes. The commit is answered by its `done`, or by
   * {@link CommittingProject.refused}.
   */
  commit(project: CommittingProject, commit: Omit<QueuedCommit, 'queuedMs'>): void {
    const nowMs = this.#clock.monotonic();
    this.#lanes.add(project, { ...commit, queuedMs: nowMs }, nowMs);
    this.#gather();
  }

  /** A project is closed; all of its commits have been answered. */
  leave(project: CommittingProject): void {
    this.#lanes.leave(project);
  }

  /**
   * A transaction is expensive, and those that are left out wait for it: requests that are being read go
   * along.
   */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    void this.#start();
  }

  async #start(): Promise<void> {
    for (let turn = 0; turn < GATHER_TURNS; turn++) await setImmediate();
    this.#isGathering = false;
    const nowMs = this.#clock.monotonic();
    for (const { project, commits } of this.#lanes.expired(nowMs))
      project.refused(commits, unavailable(new Error('the commit waited too long for its turn')));
    for (let batch = this.#lanes.take(); batch !== undefined; batch = this.#lanes.take())
      void this.#run(batch);
  }

  /** Never rejects. */
  async #run(batch: LaneBatch<CommittingProject, QueuedCommit>): Promise<void> {
    const { kind, members } = batch;
    const outcomes = await this.#commitWithRetries(members, kind === 'alone').catch((error: unknown) =>
      members.map((): Outcome => ({ kind: 'failed', error })),
    );
    const leaving = outcomes.map((outcome, at) =>
      settle(members[at] as Member, outcome, members.length === 1),
    );
    this.#lanes.end(batch, leaving, this.#clock.monotonic());
    if (this.#lanes.waiting > 0) this.#gather();
    await this.#pruneNowAndThen();
  }

  /**
   * Commits one transaction, once. While the server cannot serve, it is tried again for as long as a caller
   * may be kept waiting.
   *
   * @throws AppError `storage_unavailable` when the outcome stayed unknown, too; errors that are of no single
   * project.
   */
  async #commitWithRetries(members: readonly Member[], isAlone: boolean): Promise<readonly Outcome[]> {
    const backoff = new Backoff(this.#clock);
    for (;;) {
      const attempt = new Attempt(members, isAlone);
      try {
        return await attempt.run(this.#database);
      } catch (error) {
        if (error instanceof OutcomeUnknown) {
          if (await this.#tookEffect(attempt)) return attempt.outcomes;
        } else if (isOfStatement(error) && members.length > 1)
          return members.map(() => ({ kind: 'suspect' }));
        else if (!hasCode(error, 'storage_unavailable')) throw error;
        await backoff.wait(unavailable(error));
      }
    }
  }

  /**
   * Whether a transaction took effect whose connection broke. It held the heads of its projects to its end,
   * and a deletion takes a head away under its lock. So once one of the heads can be locked, or all are gone,
   * the transaction has ended. What is written here is durable on a standby only behind it.
   *
   * @throws AppError `storage_unavailable` when that cannot be found out in time.
   */
  async #tookEffect({ id, projects }: Attempt): Promise<boolean> {
    const backoff = new Backoff(this.#clock);
    const heads = [textArray(projects)];
    const begin = [
      { statement: LOCK_ANY_HEAD, values: heads },
      { statement: HEADS_PRESENT, values: heads },
      { statement: OUTCOME, values: [id] },
    ];
    for (;;) {
      let error: unknown = new Error('every head of a transaction is still locked');
      try {
        const tookEffect = await this.#database.transaction(
          begin,
          async (transaction, [locked, present, outcome]) => {
            if (locked?.length === 0 && present?.length !== 0) return undefined;
            await transaction.query(PROBE, [uuidv7()]);
            return { is: outcome?.[0]?.[0] === 1 };
          },
        );
        if (tookEffect !== undefined) return tookEffect.is;
      } catch (failure) {
        if (!(failure instanceof OutcomeUnknown || hasCode(failure, 'storage_unavailable'))) throw failure;
        error = failure;
      }
      await backoff.wait(unavailable(error));
    }
  }

  async #pruneNowAndThen(): Promise<void> {
    const nowMs = this.#clock.monotonic();
    if (nowMs - this.#prunedMs < PRUNE_EVERY_MS) return;
    this.#prunedMs = nowMs;
    // The next one comes.
    await this.prune().catch(() => undefined);
  }

  /** Removes outcomes that nobody looks up any more. Any node may do it at any time. */
  async prune(): Promise<void> {
    for (let pruned = PRUNED_AT_ONCE; pruned === PRUNED_AT_ONCE; )
      pruned = Number((await this.#database.query(PRUNE, []))[0]?.[0] ?? 0);
  }
}

/** Answers the commits of a member. @returns how its project goes on. */
function settle({ project, commits }: Member, outcome: Outcome, isSingle: boolean): Leaving<QueuedCommit> {
  switch (outcome.kind) {
    case 'planned': {
      const { plan, isChanged, count } = outcome;
      if (count !== undefined) project.seals.committed(count);
      if (isChanged) project.committed(plan.seq);
      for (const [at, answer] of plan.outcomes.entries()) {
        const { done } = commits[at] as QueuedCommit;
        if (answer.kind === 'accepted') done.resolve(answer.results);
        else done.reject(answer.error);
      }
      return { left: commits.slice(plan.outcomes.length), next: 'any' };
    }
    case 'refused':
      project.refused(commits, outcome.error);
      return { left: [], next: 'any' };
    case 'failed': {
      project.refused(commits, outcome.error);
      const isToBlame = isSingle && isOfStatement(outcome.error) && !hasCode(outcome.error, 'disk_full');
      return { left: [], next: isToBlame ? 'failed' : 'any' };
    }
    case 'postponed':
      return { left: commits, next: 'first' };
    default:
      return { left: commits, next: outcome.kind };
  }
}

function unavailable(cause: unknown): AppError {
  return new AppError('storage_unavailable', { cause, retryAfterS: 1 });
}
