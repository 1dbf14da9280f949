import { type BigIntStats, closeSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { constants, DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import type { Row } from '../sql/row-records.ts';
import { requireWritten, type SqlValue, type Statement } from '../sql/statement.ts';
import { createSchema } from './schema.ts';
import { SchemaCheck } from './schema-check.ts';

const SQLITE_BUSY = 5;
/**
 * How long {@link Connection.truncateLog} waits for readers, milliseconds. It is short, because all other
 * calls wait for this thread.
 */
const TRUNCATE_WAIT_MS = 50;
/** Tries to switch a new database to WAL while another process does the same. */
const WAL_TRIES = 100;
const WAL_PAUSE_MS = 20;

/**
 * A synchronous connection to the database file, with pragmas, prepared statements and write transactions.
 */
export class Connection {
  readonly #path: string;
  readonly #file: BigIntStats;
  readonly #database: DatabaseSync;
  readonly #busyTimeoutMs: number;
  readonly #schema: SchemaCheck;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens the file, creates it (mode 0600, its folder 0700) if it does not exist, and creates its schema.
   *
   * @param busyTimeoutMs how long a statement waits for another process's transaction.
   */
  constructor(path: string, busyTimeoutMs: number) {
    this.#path = path;
    this.#busyTimeoutMs = busyTimeoutMs;
    makeFolder(dirname(path));
    // SQLite gives its -wal and -shm files the mode of the database, so only this file needs it.
    closeSync(openSync(path, 'a', 0o600));
    this.#file = statSync(path, { bigint: true });
    this.#database = new DatabaseSync(path, { timeout: busyTimeoutMs, enableForeignKeyConstraints: true });
    this.#useWal();
    // FULL makes a commit in WAL mode wait for fsync. NORMAL could lose the last commits in a power failure.
    this.#database.exec('PRAGMA synchronous = FULL');
    // Overwrites deleted and replaced data with zeros, so that no destroyed key remains in free pages.
    this.#database.exec('PRAGMA secure_delete = ON');
    this.write(() => createSchema(this.#database));
    this.#schema = new SchemaCheck(this.#database);
    this.#database.setAuthorizer(denyForeignCode);
  }

  /** Runs one statement of a repository. */
  execute(statement: Statement): unknown {
    switch (statement.kind) {
      case 'rows':
        return this.#all(statement.sql, statement.values);
      case 'row':
        return this.row(statement.sql, ...statement.values);
      case 'run':
        return this.run(statement.sql, ...statement.values);
      case 'each': {
        const { query, tuples, more } = statement;
        return tuples.map((tuple) => this.#all(query.sql, [...tuple, ...more]));
      }
      case 'insert':
        for (const tuple of statement.tuples) {
          const { sql } = statement.query;
          requireWritten(this.run(sql, ...tuple, ...statement.more), 1, sql);
        }
        return [];
    }
  }

  row(sql: string, ...values: readonly SqlValue[]): Row | undefined {
    return this.#prepare(sql).get(...values.map(inputOf));
  }

  #all(sql: string, values: readonly SqlValue[]): Row[] {
    return this.#prepare(sql).all(...values.map(inputOf));
  }

  /** What the schema has beside or in place of that of this release: see `TrustStore.foreignObjects`. */
  foreignObjects(): readonly string[] {
    return this.#schema.foreign();
  }

  /** A number that changes once any other connection, in any process, has committed a change. */
  dataVersion(): number {
    return this.row('PRAGMA data_version')?.['data_version'] as number;
  }

  /** @returns the number of changed rows. */
  run(sql: string, ...values: readonly SqlValue[]): number {
    return Number(this.#prepare(sql).run(...values.map(inputOf)).changes);
  }

  /** Runs `action` on one snapshot of the database, while others write. */
  read<T>(action: () => T): T {
    this.#prepare('BEGIN').run();
    try {
      return action();
    } finally {
      this.#prepare('COMMIT').run();
    }
  }

  /**
   * Runs `change` as one transaction that holds the write lock from its start. So what it reads stays true
   * until it commits.
   */
  write<T>(change: () => T): T {
    this.beginWrite();
    try {
      const result = change();
      this.commit();
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  /** Begins a {@link write} over several calls. {@link commit} ends it, {@link close} rolls it back. */
  beginWrite(): void {
    this.#database.exec('BEGIN IMMEDIATE');
  }

  /** Begins a snapshot of the database, as of the first read. {@link commit} or {@link close} ends it. */
  beginRead(): void {
    this.#database.exec('BEGIN');
  }

  commit(): void {
    this.#requireFile();
    this.#database.exec('COMMIT');
  }

  /**
   * Checkpoints and truncates the write-ahead log, because it contains older states of pages.
   *
   * @returns false when another connection still reads from it.
   */
  truncateLog(): boolean {
    this.#database.exec(`PRAGMA busy_timeout = ${TRUNCATE_WAIT_MS}`);
    try {
      return this.row('PRAGMA wal_checkpoint(TRUNCATE)')?.['busy'] === 0;
    } finally {
      this.#database.exec(`PRAGMA busy_timeout = ${this.#busyTimeoutMs}`);
    }
  }

  /**
   * SQLite would continue in a file that was removed or renamed, and acknowledged writes would be lost with
   * the process.
   */
  #requireFile(): void {
    const file = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    if (file?.ino !== this.#file.ino || file.dev !== this.#file.dev)
      throw new Error('the database file was removed or replaced');
  }

  close(): void {
    this.#database.close();
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    // In SQLite `$1` is a name; `?1` is the first parameter.
    const statement = this.#database.prepare(sql.replace(/\$(\d+)/g, '?$1'));
    this.#statements.set(sql, statement);
    return statement;
  }

  /**
   * Switches to WAL, with retries: SQLite does not wait for the busy timeout when two new connections
   * deadlock over the switch.
   */
  #useWal(): void {
    for (let tries = 1; ; tries++) {
      try {
        this.#database.exec('PRAGMA journal_mode = WAL');
        return;
      } catch (error) {
        if ((error as { errcode?: number }).errcode !== SQLITE_BUSY || tries === WAL_TRIES) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, WAL_PAUSE_MS);
      }
    }
  }
}

/**
 * Denies everything that a trigger or a view would do: BunKMS has none. SQLite asks when it prepares a
 * statement, and prepares a known statement again after each change of the schema.
 */
function denyForeignCode(
  _action: number,
  _first: string | null,
  _second: string | null,
  _database: string | null,
  triggerOrView: string | null,
): number {
  return triggerOrView === null ? constants.SQLITE_OK : constants.SQLITE_DENY;
}

/** Converts a value for SQLite, which has no booleans. */
function inputOf(value: SqlValue): SQLInputValue {
  return typeof value === 'boolean' ? Number(value) : value;
}
