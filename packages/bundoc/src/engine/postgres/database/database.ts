import { type ConnectionSettings, clientConfig, createPool } from '@bundoc/shared/postgres/connection';
import { type Run, runOn as runOnDriver } from '@bundoc/shared/postgres/run';
import type { Logger } from '@bundoc/shared/runtime/logger';
import pg from 'pg';
import { OutcomeUnknown } from '../../errors.ts';
import { ConnectionTrouble, storageErrorOf } from './database-error.ts';

export interface DatabaseOptions extends Omit<ConnectionSettings, 'answerSlackMs' | 'applicationName'> {
  readonly connectionsMax: number;
  /**
   * After which the server ends a transaction whose client fell silent, and frees its locks, milliseconds.
   */
  readonly idleInTransactionTimeoutMs: number;
  /**
   * Whether a pooler gives each transaction another connection: then nothing is prepared, nothing is listened
   * to, and the role's own settings bound statements and transactions.
   */
  readonly isPooled: boolean;
  readonly logger: Logger;
}

/**
 * How much later than the server this side gives up: only a server that does not answer at all gets there.
 */
const SILENCE_MS = 2_000;

/** A row: numbers, texts, booleans, bytes of its own, null; in the order of the columns. */
export type Row = readonly unknown[];

/** A statement with parameters. Buffers are sent as they are. */
export interface Statement {
  /** Under which a connection prepares it, once. */
  readonly name: string;
  readonly text: string;
}

/** A statement with its parameters. */
export interface BoundStatement {
  readonly statement: Statement;
  readonly values: readonly unknown[];
}

/** What runs statements: a pool, each on any connection, or one transaction. */
export interface Queryable {
  query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]>;
}

/** One transaction. */
export interface Transaction extends Queryable {
  /** Runs statements without parameters, one trip for all. @returns the rows of each. */
  run(text: string): Promise<readonly (readonly Row[])[]>;
  /**
   * Runs the last statement and commits, in one trip: nothing may follow. @throws OutcomeUnknown as the
   * commit itself.
   */
  last(statement: Statement, values: readonly unknown[]): Promise<void>;
}

/**
 * Connections to PostgreSQL. Errors of every method: `storage_unavailable` when the server cannot be reached
 * or cannot serve, `disk_full`.
 */
export class Database implements AsyncDisposable {
  readonly #pool: pg.Pool;
  readonly #isPooled: boolean;
  /** Connections that it has at most. */
  readonly connectionsMax: number;

  constructor(options: DatabaseOptions) {
    this.connectionsMax = options.connectionsMax;
    this.#isPooled = options.isPooled;
    this.#pool = createPool({ ...configOf(options), max: options.connectionsMax }, (error) =>
      options.logger.info({ err: error }, 'a connection to PostgreSQL broke'),
    );
    // Every statement finds its rows by an index. The server keeps plans: one from when a table was small
    // would read all of a large one. And it compiles plans that it takes for dear, which costs more than any
    // statement here.
    if (!options.isPooled)
      this.#pool.on('connect', (client) => {
        // If it fails, so does what the connection was made for.
        client.query('SET enable_seqscan = off; SET jit = off').catch(() => undefined);
      });
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#pool.totalCount;
  }

  /** Callers that wait for a connection. */
  get waiting(): number {
    return this.#pool.waitingCount;
  }

  async query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]> {
    return this.#withClient((client) => this.#query(client, statement, values));
  }

  /** Runs statements without parameters outside of a transaction. @returns the rows of each. */
  async run(text: string): Promise<readonly (readonly Row[])[]> {
    return this.#withClient((client) => runOn(client, text));
  }

  /**
   * Runs `action` in one transaction (READ COMMITTED) and commits it.
   *
   * @param begin statements that go along with BEGIN, in one trip: a text without parameters, or statements
   * with theirs. `action` gets their rows.
   * @param action undefined instead of a value rolls back.
   * @throws OutcomeUnknown when the connection broke while it was committed.
   */
  async transaction<T>(
    begin: string | readonly BoundStatement[],
    action: (transaction: Transaction, begun: readonly (readonly Row[])[]) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    return this.#withClient(async (client) => {
      let result: T | undefined;
      let isCommitted = false;
      try {
        const begun = await this.#begin(client, begin);
        result = await action(
          {
            query: (statement, values) => this.#query(client, statement, values),
            run: (text) => runOn(client, text),
            last: async (statement, values) => {
              // Both are on their way before the first is answered. A statement that fails makes a rollback
              // of the commit.
              const [done, committed] = await Promise.allSettled([
                this.#query(client, statement, values),
                commit(client),
              ]);
              isCommitted = committed.status === 'fulfilled';
              if (done.status === 'rejected' && !(done.reason instanceof ConnectionTrouble))
                throw done.reason;
              if (committed.status === 'rejected') throw committed.reason;
              if (done.status === 'rejected')
                throw new OutcomeUnknown('a statement of a committed transaction has no answer', {
                  cause: done.reason,
                });
            },
          },
          begun,
        );
      } catch (error) {
        // Should it fail as well, the connection is not used again and the server rolls back by itself.
        if (!(error instanceof ConnectionTrouble || error instanceof OutcomeUnknown))
          await runOn(client, 'ROLLBACK');
        throw error;
      }
      if (result === undefined) {
        await runOn(client, 'ROLLBACK');
        return undefined;
      }
      if (!isCommitted) await commit(client);
      return result;
    });
  }

  /** Runs statements without parameters one after another on one connection. */
  async withConnection<T>(action: (run: Run) => Promise<T>): Promise<T> {
    return this.#withClient((client) => {
      const run = runOnDriver(client);
      return action((text, timeoutMs) =>
        run(text, timeoutMs).catch((error: unknown) => {
          throw troubleOf(error);
        }),
      );
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }

  async #withClient<T>(action: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw storageErrorOf(troubleOf(error));
    }
    let isBroken = false;
    // The statement that fails reports the fault.
    const onError = () => {
      isBroken = true;
    };
    client.on('error', onError);
    try {
      return await action(client);
    } catch (error) {
      isBroken ||= error instanceof ConnectionTrouble || error instanceof OutcomeUnknown;
      throw storageErrorOf(error);
    } finally {
      client.off('error', onError);
      // A connection that a statement was given up on still waits for its answer.
      client.release(isBroken);
    }
  }

  async #begin(
    client: pg.PoolClient,
    begin: string | readonly BoundStatement[],
  ): Promise<readonly (readonly Row[])[]> {
    const text = 'BEGIN ISOLATION LEVEL READ COMMITTED';
    if (typeof begin === 'string') return (await runOn(client, `${text};${begin}`)).slice(1);
    const began = runOn(client, text);
    const sent = begin.map(({ statement, values }) => this.#query(client, statement, values));
    const [begun, ...done] = await Promise.allSettled([began, ...sent]);
    // The first says why: behind it, all are refused for its sake.
    const failed = [begun, ...done].find((one) => one?.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return done.map((one) => (one as PromiseFulfilledResult<readonly Row[]>).value);
  }

  async #query(
    client: pg.PoolClient,
    { name, text }: Statement,
    values: readonly unknown[],
  ): Promise<readonly Row[]> {
    const config = { text, values: [...values], rowMode: 'array' as const, types: TYPES };
    try {
      const { rows } = await client.query<unknown[]>(this.#isPooled ? config : { ...config, name });
      return rows;
    } catch (error) {
      throw troubleOf(error);
    }
  }
}

/** What a {@link Database} is used for. */
export type Connections = Pick<Database, 'query' | 'run' | 'transaction'>;

/** How one connection is made: of the pool, or one that listens. */
export function configOf(options: DatabaseOptions): pg.ClientConfig {
  const settings = {
    statement_timeout: options.statementTimeoutMs,
    idle_in_transaction_session_timeout: options.idleInTransactionTimeoutMs,
  };
  return {
    ...clientConfig({ ...options, answerSlackMs: SILENCE_MS, applicationName: 'bundoc' }),
    // A pooler refuses what it does not know.
    ...(options.isPooled ? {} : settings),
    // What is sent one behind the other does not wait for answers in between.
    pipeline: true,
  };
}

async function runOn(client: pg.PoolClient, text: string): Promise<readonly (readonly Row[])[]> {
  try {
    const config = { text, rowMode: 'array' as const, types: TYPES };
    const results = (await client.query(config)) as unknown as { rows: Row[] } | { rows: Row[] }[];
    return (Array.isArray(results) ? results : [results]).map(({ rows }) => rows);
  } catch (error) {
    throw troubleOf(error);
  }
}

async function commit(client: pg.PoolClient): Promise<void> {
  try {
    const { command } = await client.query('COMMIT');
    // A server answers COMMIT with ROLLBACK when the transaction had failed before.
    if (command !== 'COMMIT') throw new Error(`COMMIT was answered ${command}`);
  } catch (error) {
    throw new OutcomeUnknown('it is not known whether a transaction was committed', { cause: error });
  }
}

/**
 * The server's refusals and defects of ours stay what they are; the rest are connections that broke, were not
 * made or were given up.
 */
function troubleOf(error: unknown): unknown {
  if (error instanceof pg.DatabaseError && error.code !== undefined) return error;
  if (error instanceof TypeError || error instanceof RangeError) return error;
  return new ConnectionTrouble((error as Error).message, { cause: error });
}

const [BOOL, BYTEA, INT8, INT2, INT4] = [16, 17, 20, 21, 23];
const HEX = '\\x';

/** Values of the types that are asked for here, as text: the client reads no other format. */
const TYPES = { getTypeParser: parserOf } as unknown as pg.CustomTypesConfig;

function parserOf(oid: number): (value: string) => unknown {
  switch (oid) {
    case BYTEA:
      return bytesOf;
    case INT8:
    case INT4:
    case INT2:
      return Number;
    case BOOL:
      return (value) => value === 't';
    default:
      return (value) => value;
  }
}

function bytesOf(text: string): Buffer {
  if (!text.startsWith(HEX)) throw new TypeError('the server must send bytea as hex: bytea_output');
  return Buffer.from(text.slice(HEX.length), 'hex');
}
