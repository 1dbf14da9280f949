import { readdirSync, readFileSync } from 'node:fs';
import type { PoolClient } from 'pg';
import { madeByEarlierBuild } from '../earlier-build.ts';
import { SCHEMA } from './pools.ts';

/** Beside `src` and `dist`. Files are never changed once released, only added to. */
const FOLDER = new URL('../../../migrations/', import.meta.url);
/** How long a migration waits for another node's, and may take itself, milliseconds. */
const TIMEOUT_MS = 600_000;
/** Key of the advisory lock that nodes take to migrate ("bunkms" and 1, in hex). */
const LOCK = BigInt('0x62756e6b6d7301');

/**
 * Brings the schema up to date, file by file; several nodes may try at once, one does it, in one transaction.
 *
 * @param client is left with a lock and long timeouts: it is to be closed afterwards.
 * @throws Error when a newer release has written to this database, or an earlier build.
 */
export async function migrate(client: PoolClient): Promise<void> {
  const files = readdirSync(FOLDER)
    .filter((name) => name.endsWith('.sql'))
    .sort();
  if ((await versionOf(client, files)) === files.length) return;
  await client.query(`SET lock_timeout = ${TIMEOUT_MS}; SET statement_timeout = ${TIMEOUT_MS}`);
  // Of the session, and before the transaction: one that began while another node was migrating would not see
  // the new schema.
  await patiently(client, `SELECT pg_advisory_lock(${LOCK})`);
  await client.query('BEGIN');
  const version = await versionOf(client, files);
  if (version === 0)
    await client.query(
      `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
       CREATE TABLE ${SCHEMA}.migrations (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
  for (const [index, name] of files.entries()) {
    if (index < version) continue;
    await patiently(client, readFileSync(new URL(name, FOLDER), 'utf8'));
    await client.query('INSERT INTO migrations (number, name) VALUES ($1, $2)', [index + 1, name]);
  }
  await client.query('COMMIT');
}

/** How many of `files` were applied. @throws Error when it is more than this release knows, or others. */
async function versionOf(client: PoolClient, files: readonly string[]): Promise<number> {
  const { rows } = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [
    `${SCHEMA}.migrations`,
  ]);
  if (rows[0]?.there !== true) return 0;
  const { rows: applied } = await client.query<{ number: number; name: string }>(
    'SELECT number, name FROM migrations ORDER BY number',
  );
  const foreign = applied.find(({ name }, at) => at < files.length && name !== files[at]);
  if (foreign !== undefined) throw madeByEarlierBuild(`migration ${foreign.name}`);
  const latest = applied.at(-1)?.number ?? 0;
  if (latest > files.length)
    throw new Error(`the database has schema ${latest}, this release knows ${files.length}`);
  return applied.length;
}

function patiently(client: PoolClient, text: string) {
  // The types do not know of a timeout of one query.
  return client.query({ text, query_timeout: TIMEOUT_MS } as { text: string });
}
