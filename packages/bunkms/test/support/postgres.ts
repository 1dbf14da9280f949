import { type PostgresAddress, parseAddress } from '@bundoc/shared/postgres/address';
import { PostgresServer, type PostgresServerOptions } from '@bundoc/shared/testing/postgres-server';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import pg from 'pg';
import type { StorageConfig } from '../../src/open-store.ts';
import type { PostgresSettings } from '../../src/store/postgres/settings.ts';
import type { TestStorage } from './storage.ts';

/** Settings for a test database. Tests of faults set shorter timeouts. */
export function settingsOf(
  url: string,
  { host, port, sslMode, ...more }: Partial<PostgresSettings & PostgresAddress> = {},
): PostgresSettings {
  const address = parseAddress(url);
  if (address === undefined) throw new Error(`no URL of a database: ${url}`);
  return {
    address: {
      ...address,
      ...(host === undefined ? {} : { host }),
      ...(port === undefined ? {} : { port }),
      ...(sslMode === undefined ? {} : { sslMode }),
    },
    variable: 'BUNKMS_STORAGE',
    connectionsMax: 4,
    connectTimeoutMs: PATIENT_MS / 2,
    statementTimeoutMs: PATIENT_MS / 2,
    lockTimeoutMs: PATIENT_MS / 2,
    idleInTransactionTimeoutMs: PATIENT_MS / 2,
    deadlineMs: PATIENT_MS,
    ...more,
  };
}

const EMPTY = `SET search_path = bunkms; DELETE FROM key_versions; DELETE FROM keys; DELETE FROM tokens; DELETE FROM audit;
  DELETE FROM keks; DELETE FROM installation; DELETE FROM claims; DELETE FROM presences; UPDATE scrubs SET wanted = 0, done = 0, xid = NULL`;

/**
 * Databases of one server, one per data folder. They are emptied and reused, because creating one takes long.
 */
export class PostgresDatabases implements TestStorage, AsyncDisposable {
  readonly kind = 'postgres';
  readonly server: PostgresServer;
  readonly #urls = new Map<string, string>();
  readonly #free: string[] = [];
  #made = 0;

  private constructor(server: PostgresServer) {
    this.server = server;
  }

  static async start(options?: PostgresServerOptions): Promise<PostgresDatabases> {
    return new PostgresDatabases(await PostgresServer.start(options));
  }

  async url(dataDir: string): Promise<string> {
    const known = this.#urls.get(dataDir);
    if (known !== undefined) return known;
    const url = this.#free.pop() ?? (await this.server.createDatabase(`kms_${this.#made++}`)).url;
    this.#urls.set(dataDir, url);
    return url;
  }

  async of(dataDir: string): Promise<StorageConfig> {
    return { kind: 'postgres', settings: settingsOf(await this.url(dataDir)) };
  }

  /** Searches the existing rows only: dead rows are up to the server. */
  async holds(dataDir: string, bytes: Buffer): Promise<boolean> {
    const { rows } = await this.#run(
      dataDir,
      'SELECT EXISTS (SELECT FROM bunkms.key_versions WHERE position($1 IN wrapped) > 0) AS found',
      [bytes],
    );
    return rows[0]?.found;
  }

  async edit(dataDir: string, sql: string): Promise<void> {
    const words = sql.replace(/\bx'([0-9a-f]*)'/g, "'\\x$1'::bytea").replaceAll(' AS BLOB)', ' AS bytea)');
    const database = new URL(await this.url(dataDir)).pathname.slice(1);
    // Without the triggers for foreign keys.
    await this.server.sql(
      `SET session_replication_role = replica; SET search_path = bunkms; ${words}`,
      database,
    );
  }

  async forget(dataDir: string): Promise<void> {
    const url = this.#urls.get(dataDir);
    if (url === undefined) return;
    await this.#run(dataDir, EMPTY);
    this.#urls.delete(dataDir);
    this.#free.push(url);
  }

  async #run(dataDir: string, sql: string, values?: unknown[]) {
    const client = new pg.Client({ connectionString: await this.url(dataDir) });
    await client.connect();
    try {
      return await client.query(sql, values);
    } finally {
      await client.end();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.server[Symbol.asyncDispose]();
  }
}
