import { AppError } from '@bundoc/shared/contract/app-error';
import { clientConfig, createPool } from '@bundoc/shared/postgres/connection';
import { sqlStateOf } from '@bundoc/shared/postgres/errors';
import { refusalOf } from '@bundoc/shared/postgres/refusal';
import pg, { type PoolClient } from 'pg';
import type { Sql } from '../sql/statement.ts';
import { NotPrimary, storageError } from './failure.ts';
import { runOn, sessionOf } from './session.ts';
import type { PostgresSettings } from './settings.ts';

/** The schema that all tables are in. */
export const SCHEMA = 'bunkms';
/** Tables of a session come last: otherwise PostgreSQL looks for them first. */
export const PATH = `${SCHEMA}, pg_temp`;
/** The table of the audit chain, whatever the path. */
export const AUDIT = `${SCHEMA}.audit`;

/** Maximum waiting calls. Beyond it `overloaded`. */
const PENDING_MAX = 1_024;
/**
 * How much longer than the server the client waits for a statement, milliseconds, so that it gets the
 * server's own error.
 */
const ANSWER_SLACK_MS = 500;

/** The SQLSTATE of "cache lookup failed". */
const INTERNAL_ERROR = 'XX000';
/** Maximum attempts to read the catalog while others change it. */
const CATALOG_ATTEMPTS = 8;

const BEGIN_SNAPSHOT = 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY';

/**
 * The connections of one process, all to the primary: several for reads, and one for writes, which are
 * serialized anyway.
 */
export class Pools {
  readonly #reads: pg.Pool;
  readonly #writes: pg.Pool;
  readonly #settings: PostgresSettings;
  #pending = 0;
  #closing: Promise<void> | undefined;

  constructor(settings: PostgresSettings) {
    this.#settings = settings;
    this.#reads = newPool(settings, settings.connectionsMax - 1);
    this.#writes = newPool(settings, 1);
  }

  /**
   * Runs statements that may each see a different state. @throws AppError `storage_unavailable`,
   * `overloaded`.
   */
  read<T>(work: Sql<T>): Promise<T> {
    return this.#use(this.#reads, (client) => runOn(sessionOf(client), work));
  }

  /** Runs statements that all see one snapshot, while others write. */
  snapshot<T>(work: Sql<T>): Promise<T> {
    return this.#use(this.#reads, async (client) => {
      await client.query(BEGIN_SNAPSHOT);
      const seen = await runOn(sessionOf(client), work);
      await client.query('COMMIT');
      return seen;
    });
  }

  /**
   * Reads the catalog. A function of the catalog fails with an internal error when its object goes away
   * during the statement, as while an index is rebuilt: then the work runs again.
   */
  catalog<T>(work: () => Sql<T>): Promise<T> {
    return this.#use(this.#reads, async (client) => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await runOn(sessionOf(client), work());
        } catch (error) {
          if (attempt === CATALOG_ATTEMPTS || sqlStateOf(error) !== INTERNAL_ERROR) throw error;
        }
      }
    });
  }

  /** A connection for work over several calls. The caller releases it, with an error if it is unusable. */
  async borrow(): Promise<PoolClient> {
    if (this.#closing !== undefined) throw closed();
    return await this.#reads.connect().catch((error: unknown) => {
      throw storageError(refusalOf(error, this.#settings) ?? error);
    });
  }

  /** The connection for writes. As {@link borrow}, but with the original errors of the database. */
  connectToWrite(): Promise<PoolClient> {
    return this.#writes.connect();
  }

  /** Closes all connections once nobody uses them. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= Promise.all([this.#reads.end(), this.#writes.end()]).then(() => undefined);
    return this.#closing;
  }

  async #use<T>(pool: pg.Pool, action: (client: PoolClient) => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) throw closed();
    if (this.#pending >= PENDING_MAX) throw new AppError('overloaded');
    this.#pending++;
    try {
      return await use(pool, action);
    } catch (error) {
      throw storageError(error);
    } finally {
      this.#pending--;
    }
  }
}

export function closed(): AppError {
  return new AppError('storage_unavailable', { cause: new Error('the storage is closed') });
}

async function use<T>(pool: pg.Pool, action: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let failure: unknown;
  try {
    return await action(client);
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    // After a failure, a connection may be in the middle of a transaction or an answer.
    client.release(failure !== undefined);
  }
}

function newPool(settings: PostgresSettings, max: number): pg.Pool {
  return createPool({
    ...clientConfig({ ...settings, answerSlackMs: ANSWER_SLACK_MS, applicationName: 'bunkms' }),
    max,
    types: { getTypeParser },
    onConnect: (client) => prepare(client, settings),
  });
}

/** Configures a new connection. @throws NotPrimary for a server that may be behind. */
async function prepare(client: pg.ClientBase, settings: PostgresSettings): Promise<void> {
  // If the connection breaks between two statements, the next statement fails.
  client.on('error', () => undefined);
  // The server caches plans: without this setting, one from when a table was small would scan it later. JIT
  // compilation costs more than any statement here.
  const { rows } = await client.query<{ standby: boolean }>(
    `SELECT pg_is_in_recovery() AS standby,
       set_config('statement_timeout', $1, false), set_config('quote_all_identifiers', 'off', false),
       set_config('lock_timeout', $2, false), set_config('idle_in_transaction_session_timeout', $3, false),
       set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),
       set_config('synchronous_commit',
         CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)`,
    [
      String(settings.statementTimeoutMs),
      String(settings.lockTimeoutMs),
      String(settings.idleInTransactionTimeoutMs),
    ],
  );
  if (rows[0]?.standby !== false) throw new NotPrimary();
  // Last, and by a command that no function can stand in for.
  await client.query(`SET search_path = ${PATH}`);
}

const INT8 = 20;
const BYTEA = 17;

/** Parses numbers as numbers, because none exceeds 2^53, and copies bytes into separate memory. */
function getTypeParser(oid: number, format?: 'text' | 'binary') {
  if (oid === INT8) return Number;
  const parse = pg.types.getTypeParser(oid, format as 'text') as (value: string) => unknown;
  return oid === BYTEA ? (value: string) => Uint8Array.from(parse(value) as Buffer) : parse;
}
