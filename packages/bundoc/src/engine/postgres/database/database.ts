import type { Logger } from '@bundoc/shared/logs/logger';
import { type ConnectionSettings, clientConfig, createPool } from '@bundoc/shared/postgres/connection';
import { refusalOf } from '@bundoc/shared/postgres/refusal';
import { type Run, runOn as runOnDriver } from '@bundoc/shared/postgres/run';
import pg from 'pg';
import { OutcomeUnknown } from '../../port/errors.ts';
import { ConnectionTrouble, storageErrorOf } from './database-error.ts';

export interface DatabaseOptions extends Omit<ConnectionSettings, 'answerSlackMs' | 'applicationName'> {
  readonly connectionsMax: number;
  /** Time after which the server ends an idle transaction and frees its locks, milliseconds. */
  readonly idleInTransactionTimeoutMs: number;
  /**
   * Whether a pooler may give each transaction another connection. Then statements are not prepared, and
   * the role's own settings limit statements and transactions.
   */
  readonly isPooled: boolean;
  readonly logger: Logger;
}

/** Extra time before this side gives up, which only happens when the server does not answer at all. */
const SILENCE_MS = 2_000;

/** A row in the order of the columns: numbers, texts, booleans, bytes in a separate buffer, null. */
export type Row = readonly unknown[];

/** A statement with parameters. Buffers are sent as binary. */
export interface Statement {
  /** The name under which a connection prepares it once. */
  readonly name: string;
  readonly text: string;
}

/** A statement with its parameters. */
export interface BoundStatement {
  readonly statement: Statement;
  readonly values: readonly unknown[];
}

/** Runs statements: a pool on any connection, or one transaction. */
export interface Queryable {
  query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]>;
}

/** One transaction. */
export interface Transaction extends Queryable {
  /** Runs statements without parameters in one round trip. @returns the rows of each. */
  run(text: string): Promise<readonly (readonly Row[])[]>;
  /**
   * Runs the last statement and commits, in one round trip; nothing may follow. @throws OutcomeUnknown as the
   * commit itself.
   */
  last(statement: Statement, values: readonly unknown[]): Promise<void>;
}

/**
 * Connections to PostgreSQL. Errors of every method: `disk_full`; `storage_unavailable` when the server
 * cannot be reached or cannot serve.
 */
export class Database implements AsyncDisposable {
  readonly #pool: pg.Pool;
  readonly #options: DatabaseOptions;
  /** Maximum number of connections. */
  readonly connectionsMax: number;

  constructor(options: DatabaseOptions) {
    this.connectionsMax = options.connectionsMax;
    this.#options = options;
    this.#pool = createPool({ ...configOf(options), max: options.connectionsMax }, (error) =>
      options.logger.info({ err: error }, 'a connection to PostgreSQL broke'),
    );
    // Every statement finds its rows by an index, but the server caches plans, and one from when a table was
    // small would scan it later. JIT compilation costs more than any statement here.
    if (!options.isPooled)
      this.#pool.on('connect', (client) => {
        // A failure breaks the connection, which then fails for its user.
        client.query('SET enable_seqscan = off; SET jit = off').catch(() => undefined);
      });
  }

  /** Number of open connections. */
  get connections(): number {
    return this.#pool.totalCount;
  }

  /** Number of callers that wait for a connection. */
  get waiting(): number {
    return this.#pool.waitingCount;
  }

  async query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]> {
    return this.#withClient((client) => this.#query(client, statement, values));
  }

  /** Runs statements without parameters outside a transaction. @returns the rows of each. */
  async run(text: string): Promise<readonly (readonly Row[])[]> {
    return this.#withClient((client) => runOn(client, text));
  }

  /**
   * Runs `action` in one transaction (READ COMMITTED) and commits it.
   *
   * @param begin statements sent with BEGIN in one round trip: a text without parameters, or statements with
   *   theirs. `action` gets their rows.
   * @param action returns a value to commit, or undefined to roll back.
   * @throws OutcomeUnknown when the connection broke during the commit.
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
              // Both are sent before the first is answered. If the statement fails, the server answers the
              // commit with a rollback.
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
        // If that fails as well, the connection is discarded and the server rolls back.
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
          throw toConnectionError(error);
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
      const refusal = refusalOf(error, this.#options);
      throw storageErrorOf(
        refusal === undefined
          ? toConnectionError(error)
          : new ConnectionTrouble(refusal.message, { cause: refusal }),
      );
    }
    let isBroken = false;
    // The failing statement reports the error.
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
      // A connection with an abandoned statement still waits for its answer.
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
    // The first failure is the cause; the later statements only fail because of it.
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
      const { rows } = await client.query<unknown[]>(this.#options.isPooled ? config : { ...config, name });
      return rows;
    } catch (error) {
      throw toConnectionError(error);
    }
  }
}

/** The operations of a {@link Database}. */
export type Connections = Pick<Database, 'query' | 'run' | 'transaction'>;

/** The settings of one connection. */
function configOf(options: DatabaseOptions): pg.ClientConfig {
  const settings = {
    statement_timeout: options.statementTimeoutMs,
    idle_in_transaction_session_timeout: options.idleInTransactionTimeoutMs,
  };
  return {
    ...clientConfig({ ...options, answerSlackMs: SILENCE_MS, applicationName: 'bundoc' }),
    // A pooler refuses unknown settings.
    ...(options.isPooled ? {} : settings),
    // Consecutive statements do not wait for each other's answers.
    pipeline: true,
  };
}

async function runOn(client: pg.PoolClient, text: string): Promise<readonly (readonly Row[])[]> {
  try {
    const config = { text, rowMode: 'array' as const, types: TYPES };
    const results = (await client.query(config)) as unknown as { rows: Row[] } | { rows: Row[] }[];
    return (Array.isArray(results) ? results : [results]).map(({ rows }) => rows);
  } catch (error) {
    throw toConnectionError(error);
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

/** Errors of the server and defects are returned unchanged; all others become connection errors. */
function toConnectionError(error: unknown): unknown {
  if (error instanceof pg.DatabaseError && error.code !== undefined) return error;
  if (error instanceof TypeError || error instanceof RangeError) return error;
  return new ConnectionTrouble((error as Error).message, { cause: error });
}

const [BOOL, BYTEA, INT8, INT2, INT4] = [16, 17, 20, 21, 23];
const HEX = '\\x';

/** Parsers for the used types in text format: the client reads no other format. */
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
