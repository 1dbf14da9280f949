import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { databasePathOf } from '@bundoc/bunkms/store/sqlite/sqlite-store';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import pg from 'pg';

/** The tables that decide what BunKMS releases, with the columns that identify a row. */
export const TABLES = {
  audit: ['seq'],
  keys: ['id'],
  key_versions: ['key_id', 'version'],
  tokens: ['number'],
  keks: ['id'],
  installation: ['id'],
} as const;
export type TableName = keyof typeof TABLES;
export const TABLE_NAMES = Object.keys(TABLES) as TableName[];

/** A row: each value as a literal of SQL, by column. */
export type Cells = Readonly<Record<string, string>>;
/** The rows of each table, by what identifies them. */
export type Content = Readonly<Record<TableName, Map<string, Cells>>>;

/** The running transaction of an attacker. */
export interface KmsChange {
  run(sql: string): Promise<void>;
  /** Rows of a query. */
  rows(sql: string): Promise<Readonly<Record<string, unknown>>[]>;
  content(): Promise<Content>;
}

/** The database of BunKMS as its operator reaches it: everything but the KEK. */
export interface KmsDatabase extends AsyncDisposable {
  readonly kind: 'sqlite' | 'postgres';
  /** The variables with which BunKMS uses it. */
  readonly environment: Readonly<Record<string, string>>;
  /** Where a table is while something else has its name. */
  readonly places: Map<TableName, string>;
  /** Runs one transaction. @param isExclusive whether no write of BunKMS may be half done meanwhile. */
  change<T>(isExclusive: boolean, work: (change: KmsChange) => Promise<T>): Promise<T>;
}

export function idOf(table: TableName, cells: Cells): string {
  return TABLES[table].map((column) => cells[column]).join(' ');
}

/** A copy that may be changed. Rows are replaced, never changed. */
export function copyOf(content: Content): Content {
  return Object.fromEntries(TABLE_NAMES.map((table) => [table, new Map(content[table])])) as Content;
}

/** Whether two rows are the same, or both missing. */
export function isSameRow(one: Cells | undefined, other: Cells | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return Object.keys(one).every((column) => one[column] === other[column]);
}

/** Makes the rows that differ like those of `to`. */
export async function writeContent(
  database: KmsDatabase,
  change: KmsChange,
  from: Content,
  to: Content,
): Promise<void> {
  const [removals, additions]: [string[], string[]] = [[], []];
  for (const table of TABLE_NAMES) {
    const place = placeOf(database, table);
    for (const id of new Set([...from[table].keys(), ...to[table].keys()])) {
      const [before, after] = [from[table].get(id), to[table].get(id)];
      if (isSameRow(before, after)) continue;
      if (before !== undefined)
        removals.push(
          `DELETE FROM ${place} WHERE ${TABLES[table].map((name) => `${name} = ${before[name]}`).join(' AND ')}`,
        );
      if (after !== undefined) additions.push(insertion(database, table, after));
    }
  }
  for (const sql of [...removals, ...additions]) await change.run(sql);
}

function insertion(database: KmsDatabase, table: TableName, cells: Cells): string {
  const overriding = database.kind === 'postgres' ? 'OVERRIDING SYSTEM VALUE' : '';
  return `INSERT INTO ${placeOf(database, table)} (${Object.keys(cells).join(', ')}) ${overriding}
    VALUES (${Object.values(cells).join(', ')})`;
}

function placeOf({ places }: Pick<KmsDatabase, 'places'>, table: TableName): string {
  return places.get(table) ?? table;
}

type Columns = Readonly<Record<TableName, readonly string[]>>;

function contentOf(rowsOf: (table: TableName) => readonly Cells[]): Content {
  return Object.fromEntries(
    TABLE_NAMES.map((table) => [
      table,
      new Map(rowsOf(table).map((cells) => [idOf(table, cells), { ...cells }])),
    ]),
  ) as Content;
}

/** Runs one after another. */
class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#last.then(work);
    this.#last = next.catch(() => undefined);
    return next;
  }
}

/** A file beside BunKMS. */
export class SqliteKmsDatabase implements KmsDatabase {
  readonly kind = 'sqlite';
  readonly places = new Map<TableName, string>();
  readonly #turns = new Turns();
  readonly #dataDir = mkdtempSync(join(tmpdir(), 'bunkms-hostile-'));
  readonly environment = { BUNKMS_DATA_DIR: this.#dataDir };
  #columns: Columns | undefined;

  change<T>(_isExclusive: boolean, work: (change: KmsChange) => Promise<T>): Promise<T> {
    return this.#turns.take(async () => {
      const options = { timeout: PATIENT_MS, enableForeignKeyConstraints: false, defensive: false };
      const database = new DatabaseSync(databasePathOf(this.#dataDir), options);
      try {
        database.exec('PRAGMA writable_schema = ON; PRAGMA legacy_alter_table = ON; BEGIN IMMEDIATE');
        const result = await work({
          run: async (sql) => database.exec(sql),
          rows: async (sql) => database.prepare(sql).all(),
          content: async () => this.#content(database),
        });
        database.exec('COMMIT');
        return result;
      } finally {
        // Rolls back what was not committed.
        database.close();
      }
    });
  }

  #content(database: DatabaseSync): Content {
    this.#columns ??= columnsOf((table) =>
      database.prepare(`SELECT name FROM pragma_table_info('${table}')`).all(),
    );
    const columns = this.#columns;
    return contentOf((table) => {
      const cells = columns[table].map((name) => `quote(${name}) AS ${name}`).join(', ');
      return database.prepare(`SELECT ${cells} FROM ${placeOf(this, table)}`).all() as Cells[];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#dataDir, { recursive: true, force: true });
  }
}

/** What BunKMS holds during each of its writes. */
const CHAIN_LOCK = BigInt('0x62756e6b6d7302');

/** A database of a server, as its superuser. */
export class PostgresKmsDatabase implements KmsDatabase {
  readonly kind = 'postgres';
  readonly environment: Readonly<Record<string, string>>;
  readonly places = new Map<TableName, string>();
  readonly #turns = new Turns();
  readonly #client: pg.Client;
  #columns: Columns | undefined;

  private constructor(url: string, client: pg.Client) {
    this.environment = { BUNKMS_STORAGE: url };
    this.#client = client;
  }

  static async create(server: PostgresServer, name: string): Promise<PostgresKmsDatabase> {
    const { url } = await server.createDatabase(name);
    await server.sql(`CREATE ROLE ${name}_operator SUPERUSER LOGIN PASSWORD 'operator'`);
    const address = new URL(url);
    [address.username, address.password] = [`${name}_operator`, 'operator'];
    const client = new pg.Client(address.href);
    await client.connect();
    // Without the triggers and rules that it plants itself.
    await client.query(
      `SET search_path = bunkms, public; SET session_replication_role = replica; SET lock_timeout = ${PATIENT_MS / 2}`,
    );
    return new PostgresKmsDatabase(url, client);
  }

  change<T>(isExclusive: boolean, work: (change: KmsChange) => Promise<T>): Promise<T> {
    const client = this.#client;
    return this.#turns.take(async () => {
      try {
        // A wait for the lock may end in an error, within the transaction.
        await client.query(`BEGIN${isExclusive ? `; SELECT pg_advisory_xact_lock(${CHAIN_LOCK})` : ''}`);
        const result = await work({
          run: async (sql) => void (await client.query(sql)),
          rows: async (sql) => (await client.query<Record<string, unknown>>(sql)).rows,
          content: () => this.#content(),
        });
        await client.query('COMMIT');
        return result;
      } catch (error) {
        await client.query('ROLLBACK');
        throw error;
      }
    });
  }

  async #content(): Promise<Content> {
    const client = this.#client;
    if (this.#columns === undefined) {
      const { rows } = await client.query<{ table: string; name: string }>(
        `SELECT relname AS table, attname AS name FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
         WHERE relnamespace = 'bunkms'::regnamespace AND attnum > 0 ORDER BY attnum`,
      );
      this.#columns = columnsOf((table) => rows.filter((row) => row.table === table));
    }
    const found = new Map<TableName, Cells[]>();
    for (const table of TABLE_NAMES) {
      const cells = this.#columns[table].map((name) => `quote_nullable(${name}::text) AS ${name}`).join(', ');
      const { rows } = await client.query<Cells>(`SELECT ${cells} FROM ONLY ${placeOf(this, table)}`);
      found.set(table, rows);
    }
    return contentOf((table) => found.get(table) ?? []);
  }

  /** After the changes that still wait for their turn. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#turns.take(() => this.#client.end());
  }
}

function columnsOf(of: (table: TableName) => readonly Record<string, unknown>[]): Columns {
  return Object.fromEntries(
    TABLE_NAMES.map((table) => [table, of(table).map(({ name }) => String(name))]),
  ) as unknown as Columns;
}
