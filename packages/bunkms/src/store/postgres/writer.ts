import { type KeyObject, randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { Batcher } from '@bundoc/shared/runtime/batcher';
import type { PoolClient } from 'pg';
import type { ChainHead } from '../../records/chain.ts';
import { headForWrite, LAST_RECORD, laterHead, requireStored } from '../sql/audit-table.ts';
import { COUNT_PROBE } from '../sql/operations.ts';
import type { Row } from '../sql/row-records.ts';
import { row, run, type Sql } from '../sql/statement.ts';
import { Untrusted } from '../trust.ts';
import { BufferedChain } from './chain.ts';
import { isConnectionFailure, locked, storageError } from './failure.ts';
import { AUDIT, closed, PATH, type Pools } from './pools.ts';
import { runOn, sessionOf } from './session.ts';

/** Maximum waiting writes. Beyond it `overloaded`. */
const WAITING_MAX = 1_024;
/** Maximum writes of one transaction. */
const BATCH_MAX = 64;
/** The wait before a retry on another connection. */
const BACKOFF = { firstMs: 50, maxMs: 400 };

/** Key of the advisory lock that is required to append to the chain ("bunkms" and 2, in hex). */
const CHAIN_LOCK = BigInt('0x62756e6b6d7302');
/**
 * Each statement sees the commits before it, so the head is that of the moment when the lock was acquired.
 */
const BEGIN_WRITE = `BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = ${PATH};
  SELECT pg_advisory_xact_lock(${CHAIN_LOCK}); ${LAST_RECORD}`;

interface Job {
  readonly action: (chain: BufferedChain) => Sql<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly expiresAtMs: number;
  readonly timer: NodeJS.Timeout;
  /** True once the caller has an answer. */
  isSettled: boolean;
}

/**
 * The result of an action: its value, or the refusal that it threw. It has neither if no caller waited for it
 * any longer.
 */
type Result = { readonly value: unknown } | { readonly refusal?: AppError };

interface Committed {
  readonly kind: 'committed';
  readonly results: readonly Result[];
  readonly records: WrittenRecords | undefined;
}

/** The places of the first and the last record of a transaction, and the key of their chain. */
interface WrittenRecords {
  readonly first: ChainHead;
  readonly last: ChainHead;
  readonly chainKey: KeyObject;
}

/**
 * The outcome of a transaction. `failed`: the database refused it. `broken`: there was no connection, or it
 * broke. In both cases nothing was written. `undurable`: it was written, but may still be lost. `unknown`:
 * the connection broke during the commit.
 */
type Outcome =
  | Committed
  | { readonly kind: 'failed' | 'broken' | 'undurable'; readonly error: unknown }
  | {
      readonly kind: 'unknown';
      readonly error: unknown;
      readonly results: readonly Result[];
      readonly records: WrittenRecords;
      readonly writeId: string;
    };

/**
 * The writes of one node, with group commit: writes that arrive during a transaction share the next one. Each
 * transaction holds the lock of the chain. So the writes of all nodes are serialized, and what a write reads
 * stays true until it commits.
 *
 * No write is answered before it is durable, and none with an unknown outcome is answered. After a lost
 * connection, the outcome of a transaction is looked up by the id that is stored with its records. If it was
 * not committed, it is retried until its deadline.
 */
export class Writer {
  readonly #pools: Pick<Pools, 'connectToWrite' | 'read'>;
  readonly #deadlineMs: number;
  readonly #batcher = new Batcher<Job>({ queue: BATCH_MAX, run: (batch) => this.#writeAll(batch) });
  #chainKey: KeyObject | undefined;
  /** A record that the chain must contain. */
  #known: ChainHead | undefined;
  #isClosed = false;

  constructor(pools: Pick<Pools, 'connectToWrite' | 'read'>, deadlineMs: number) {
    this.#pools = pools;
    this.#deadlineMs = deadlineMs;
  }

  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  /** See `TrustStore.expectHead`. */
  expectHead(head: ChainHead | undefined): void {
    this.#known = laterHead(this.#known, head);
  }

  /** @throws AppError `storage_unavailable` before {@link unlock}. */
  get chainKey(): KeyObject {
    if (this.#chainKey === undefined) throw locked();
    return this.#chainKey;
  }

  /**
   * Runs an action as part of a transaction. It may run again after a failed try, and must not write before
   * it throws.
   *
   * @throws what the action throws, when that is an AppError; `storage_unavailable`, `disk_full`: then the
   *   write may have happened; `overloaded`. Also `storage_unavailable` before {@link unlock}.
   */
  write<T>(action: (chain: BufferedChain) => Sql<T>): Promise<T> {
    if (this.#chainKey === undefined) return Promise.reject(locked());
    return this.writeUnaudited(action);
  }

  /** {@link write} without an audit record. */
  writeUnaudited<T>(action: (chain: BufferedChain) => Sql<T>): Promise<T> {
    if (this.#isClosed) return Promise.reject(closed());
    if (this.#batcher.waiting >= WAITING_MAX) return Promise.reject(new AppError('overloaded'));
    return new Promise<T>((resolve, reject) => {
      const job: Job = {
        action,
        resolve: resolve as (value: unknown) => void,
        reject,
        expiresAtMs: performance.now() + this.#deadlineMs,
        timer: setTimeout(() => refuse([job], late(this.#deadlineMs)), this.#deadlineMs),
        isSettled: false,
      };
      this.#batcher.add(job);
    });
  }

  /** Finishes earlier writes and accepts no new ones. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#batcher.settled();
  }

  async #writeAll(batch: readonly Job[]): Promise<void> {
    for (let failures = 1; ; failures++) {
      // No caller waits for the others any longer, so they must not take effect now.
      const jobs = batch.filter(({ isSettled }) => !isSettled);
      if (jobs.length === 0) return;
      const outcome = await this.#resolved(await this.#attempt(jobs), jobs);
      if (outcome.kind === 'committed') return await this.#believe(outcome, jobs);
      if (outcome.kind === 'undurable') return refuse(jobs, outcome.error);
      if (outcome.kind === 'failed') {
        // One job is at fault; run each alone, so that the others succeed.
        if (jobs.length > 1) for (const job of jobs) await this.#writeAll([job]);
        else refuse(jobs, outcome.error);
        return;
      }
      const pauseMs = backoffMs(BACKOFF, failures);
      if (isOver(jobs, pauseMs)) return refuse(jobs, outcome.error);
      await pause(pauseMs);
    }
  }

  /**
   * Answers once the records were read, in a statement of its own and on another connection: what ran in the
   * transaction may have changed the settings of that one.
   */
  async #believe({ results, records }: Committed, jobs: readonly Job[]): Promise<void> {
    for (let failures = 1; records !== undefined; failures++) {
      const { first, last, chainKey } = records;
      try {
        await this.#pools.read(requireStored(chainKey, first, last, AUDIT));
        // Nothing may require a record that was lost before it was answered.
        this.#known = last;
        break;
      } catch (error) {
        const pauseMs = backoffMs(BACKOFF, failures);
        if (hasCode(error, 'sealed')) return refuse(jobs, error);
        // Even if the read was `overloaded`, because that code says that nothing has changed.
        if (isOver(jobs, pauseMs)) return refuse(jobs, unknownOutcome(error));
        await pause(pauseMs);
      }
    }
    answer(jobs, results);
  }

  async #attempt(jobs: readonly Job[]): Promise<Outcome> {
    let client: PoolClient;
    try {
      client = await this.#pools.connectToWrite();
    } catch (error) {
      return { kind: 'broken', error };
    }
    const outcome = await attempt(client, jobs, this.#chainKey, this.#known);
    // If a rule has made a statement do nothing, PostgreSQL keeps it so even after the rule is gone.
    const isMisled = 'error' in outcome && outcome.error instanceof Untrusted;
    client.release(isMisled || outcome.kind === 'broken' || outcome.kind === 'unknown');
    return outcome;
  }

  /** Looks up the outcome of a transaction after a lost connection, as long as a caller waits for it. */
  async #resolved(outcome: Outcome, jobs: readonly Job[]): Promise<Exclude<Outcome, { kind: 'unknown' }>> {
    if (outcome.kind !== 'unknown') return outcome;
    const { error, results, records, writeId } = outcome;
    for (let failures = 1; ; failures++) {
      const happened = await this.#isThere(records.first, writeId).catch(() => undefined);
      if (happened === true) return { kind: 'committed', results, records };
      if (happened === false) return { kind: 'broken', error };
      const pauseMs = backoffMs(BACKOFF, failures);
      if (isOver(jobs, pauseMs)) return { kind: 'undurable', error };
      await pause(pauseMs);
    }
  }

  /**
   * Whether the transaction with that id has durably written that record. It takes the lock, because an
   * unfinished transaction still holds it. It also writes: after a crash a server may show commits that its
   * standby lacks, and a later commit waits for all earlier ones.
   */
  async #isThere({ seq, hash }: ChainHead, writeId: string): Promise<boolean> {
    const client = await this.#pools.connectToWrite();
    let isSound = false;
    try {
      await client.query(BEGIN_WRITE);
      const found = await runOn(sessionOf(client), lookUp(seq));
      await commit(client);
      isSound = true;
      return found?.['write_id'] === writeId && found['hash'] === hash;
    } finally {
      client.release(!isSound);
    }
  }
}

function* lookUp(seq: number): Sql<Row | undefined> {
  const found = yield* row('SELECT hash, write_id FROM audit WHERE seq = $1', seq);
  yield* run(COUNT_PROBE);
  return found;
}

/** The server has committed, but reports that it did not wait for a standby as configured. */
class NotReplicated extends Error {
  override readonly name = 'NotReplicated';
}

async function attempt(
  client: PoolClient,
  jobs: readonly Job[],
  chainKey: KeyObject | undefined,
  known: ChainHead | undefined,
): Promise<Outcome> {
  const writeId = randomUUID();
  let chain: BufferedChain;
  try {
    chain = new BufferedChain(
      sessionOf(client),
      chainKey,
      await beginWrite(client, chainKey, known),
      writeId,
    );
  } catch (error) {
    if (error instanceof Untrusted) return { kind: await rolledBack(client), error };
    // Others held the lock for too long, or the connection is unusable: the jobs are not at fault.
    return { kind: 'broken', error };
  }
  const results: Result[] = [];
  try {
    for (const job of jobs) results.push(job.isSettled ? {} : await resultOf(job.action, chain));
    await chain.flush();
  } catch (error) {
    if (isConnectionFailure(error)) return { kind: 'broken', error };
    return { kind: await rolledBack(client), error };
  }
  try {
    await commit(client);
    return { kind: 'committed', results, records: writtenOf(chain) };
  } catch (error) {
    if (error instanceof NotReplicated) return { kind: 'undurable', error };
    const records = writtenOf(chain);
    // Without a record, the transaction may safely be repeated.
    return records === undefined
      ? { kind: 'broken', error }
      : { kind: 'unknown', error, results, records, writeId };
  }
}

function writtenOf(chain: BufferedChain): WrittenRecords | undefined {
  const { first, head: last } = chain;
  return first === undefined || last === undefined ? undefined : { first, last, chainKey: chain.chainKey };
}

/**
 * Begins a transaction that holds the lock of the chain.
 *
 * @param more statements that follow.
 * @returns the place that it continues.
 * @throws Untrusted: see `headForWrite`.
 */
export async function beginWrite(
  client: PoolClient,
  chainKey: KeyObject | undefined,
  known?: ChainHead,
  more = '',
): Promise<ChainHead> {
  // A number, so it needs no parameter, which several statements at once cannot have.
  const hashAt = known === undefined ? '' : `; SELECT hash FROM audit WHERE seq = ${known.seq}`;
  const results = (await client.query<Row>(`${BEGIN_WRITE}${hashAt}${more}`)) as unknown as { rows: Row[] }[];
  return headForWrite(results[3]?.rows[0], known, results[4]?.rows[0]?.['hash'], chainKey);
}

/** `failed` once the transaction is rolled back, `broken` when the connection is unusable. */
function rolledBack(client: PoolClient): Promise<'failed' | 'broken'> {
  return client.query('ROLLBACK').then(
    () => 'failed',
    () => 'broken',
  );
}

async function resultOf(action: Job['action'], chain: BufferedChain): Promise<Result> {
  try {
    return { value: await chain.run(action(chain)) };
  } catch (error) {
    if (error instanceof AppError) return { refusal: error };
    throw error;
  }
}

/**
 * @throws NotReplicated when an operator ended the server's wait for its standby: then the commit may be
 *   lost with the server.
 */
export async function commit(client: PoolClient): Promise<void> {
  let warning: string | undefined;
  const onNotice = ({
    severity,
    message,
  }: {
    severity?: string | undefined;
    message?: string | undefined;
  }) => {
    if (severity === 'WARNING') warning = message ?? '';
  };
  client.on('notice', onNotice);
  try {
    await client.query('COMMIT');
  } finally {
    client.off('notice', onNotice);
  }
  if (warning !== undefined) throw new NotReplicated(warning);
}

function isOver(jobs: readonly Job[], pauseMs: number): boolean {
  const untilMs = performance.now() + pauseMs;
  return jobs.every(({ isSettled, expiresAtMs }) => isSettled || expiresAtMs <= untilMs);
}

function answer(jobs: readonly Job[], results: readonly Result[]): void {
  for (const [index, job] of jobs.entries()) {
    const result = results[index];
    settle(job, () => {
      if (result !== undefined && 'value' in result) job.resolve(result.value);
      else job.reject(result?.refusal);
    });
  }
}

function refuse(jobs: readonly Job[], error: unknown): void {
  for (const job of jobs) settle(job, () => job.reject(storageError(error)));
}

function settle(job: Job, how: () => void): void {
  if (job.isSettled) return;
  job.isSettled = true;
  clearTimeout(job.timer);
  how();
}

/** The write may have happened. */
function unknownOutcome(cause: unknown): AppError {
  return new AppError('storage_unavailable', { cause });
}

function late(deadlineMs: number): AppError {
  return new AppError('storage_unavailable', {
    cause: new Error(`PostgreSQL did not accept a write within ${deadlineMs} ms`),
  });
}
