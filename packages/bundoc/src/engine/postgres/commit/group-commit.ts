import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { currentShare } from '@bundoc/shared/shares/share-key';
import { v7 as uuidv7 } from 'uuid';
import { OutcomeUnknown } from '../../port/errors.ts';
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
/** Time after which other commits no longer wait for the end of a small transaction, milliseconds. */
const STALLED_MS = 50;
/** Interval at which a committing node removes old outcomes, milliseconds. */
const PRUNE_EVERY_MS = 600_000;
/** Outcomes removed by one statement. */
const PRUNED_AT_ONCE = 10_000;

/**
 * No node looks up an outcome after an hour. Ids begin with the time of the node that made them, so a range
 * of ids bounds the scan. The server's clock decides.
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
 * Commits the waiting commits of all open projects of this node, with many projects in a transaction. A
 * transaction locks the heads of its projects, so `seq` orders the commits of all nodes. A reader that sees
 * one commit sees all earlier ones. It never waits for a head while it holds another. A refusal for one
 * project does not affect the others.
 *
 * When the connection breaks during the commit, the outcome is looked up by an id that the transaction wrote.
 * Only a transaction without effect is retried.
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

  /** Queues a commit. It is answered through its `done`, or by {@link CommittingProject.refused}. */
  commit(project: CommittingProject, commit: Omit<QueuedCommit, 'queuedMs' | 'subject'>): void {
    const nowMs = this.#clock.monotonic();
    this.#lanes.add(project, { ...commit, subject: currentShare().subject, queuedMs: nowMs }, nowMs);
    this.#gather();
  }

  /** Called when a project is closed, after all of its commits were answered. */
  leave(project: CommittingProject): void {
    this.#lanes.leave(project);
  }

  /**
   * Waits for concurrent requests first: a transaction is expensive, and commits that miss one wait for its
   * end.
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
    const stalls = () => {
      this.#lanes.stalls(batch);
      this.#gather();
    };
    const stall = kind === 'small' ? setTimeout(stalls, STALLED_MS) : undefined;
    const outcomes = await this.#commitWithRetries(members, kind === 'alone').catch((error: unknown) =>
      members.map((): Outcome => ({ kind: 'failed', error })),
    );
    clearTimeout(stall);
    const leaving = outcomes.map((outcome, at) =>
      settle(members[at] as Member, outcome, members.length === 1),
    );
    this.#lanes.end(batch, leaving, this.#clock.monotonic());
    if (this.#lanes.waiting > 0) this.#gather();
    await this.#pruneNowAndThen();
  }

  /**
   * Commits one transaction exactly once. While the server is unavailable, it is retried for as long as a
   * client may wait.
   *
   * @throws AppError `storage_unavailable`, also when the outcome is still unknown; errors that concern no
   *   single project.
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
   * Whether a transaction with a broken connection took effect. It held the heads of its projects until its
   * end, and a deletion removes a head only under its lock. So once one of the heads can be locked, or all
   * are gone, the transaction has ended. The write here becomes durable on a standby only after that
   * transaction.
   *
   * @throws AppError `storage_unavailable` when the outcome stays unknown in time.
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
    // The next run repeats it.
    await this.prune().catch(() => undefined);
  }

  /** Removes outcomes that are no longer needed. Any node may do it at any time. */
  async prune(): Promise<void> {
    for (let pruned = PRUNED_AT_ONCE; pruned === PRUNED_AT_ONCE; )
      pruned = Number((await this.#database.query(PRUNE, []))[0]?.[0] ?? 0);
  }
}

/** Answers the commits of a member. @returns how its project continues. */
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
