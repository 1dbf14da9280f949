import { kekIdOf } from '../../vault/vault.ts';
import type { ForwardPage, KekUse, KeyVersionRecord, Page, PageQuery } from '../port.ts';
import type { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { readInstallation } from './installation-table.ts';
import { takePage } from './page.ts';

/** Word for word as in the index: only so SQLite uses it. */
const WRAPPED = 'key_versions INDEXED BY key_versions_by_kek WHERE length(wrapped) > 0';
const KEK_ID = 'substr(wrapped, 2, 8)';

/** Tells whether all bytes that a change brings are wrapped with this KEK. */
export function isWrappedWith(versions: readonly KeyVersionRecord[], kekId: string | undefined): boolean {
  return versions.every(({ wrapped }) => wrapped.length === 0 || kekIdOf(wrapped) === kekId);
}

export function kekUses(connection: Connection): KekUse[] {
  const uses = new Map<string, { versions: number; secrets: number }>();
  for (const row of connection.rows(
    `SELECT ${KEK_ID} AS kek_id, count(*) AS versions FROM ${WRAPPED} GROUP BY ${KEK_ID}`,
  ))
    uses.set(hexOf(row['kek_id'] as Uint8Array), { versions: row['versions'] as number, secrets: 0 });
  for (const wrapped of secretsOf(connection)) {
    const kekId = kekIdOf(wrapped) ?? '';
    const use = uses.get(kekId) ?? { versions: 0, secrets: 0 };
    uses.set(kekId, { ...use, secrets: use.secrets + 1 });
  }
  return [...uses]
    .map(([kekId, use]) => ({ kekId, ...use }))
    .sort((one, other) => (one.kekId < other.kekId ? -1 : 1));
}

export function countWrappedOtherwise(connection: Connection, kekId: string): number {
  const row = connection.row(
    `SELECT (SELECT count(*) FROM ${WRAPPED} AND ${KEK_ID} < ?1) + (SELECT count(*) FROM ${WRAPPED} AND ${KEK_ID} > ?1) AS count`,
    Buffer.from(kekId, 'hex'),
  );
  return row?.['count'] as number;
}

/** Whether a version of a key, or a secret of the service, is wrapped with the KEK. */
export function isKekInUse(connection: Connection, kekId: string): boolean {
  const row = connection.row(`SELECT 1 FROM ${WRAPPED} AND ${KEK_ID} = ? LIMIT 1`, Buffer.from(kekId, 'hex'));
  return row !== undefined || secretsOf(connection).some((wrapped) => kekIdOf(wrapped) === kekId);
}

/** Ids of the keys of which a version is wrapped with the KEK. */
export function listWrapped(connection: Connection, kekId: string, page: PageQuery<string>): Page<string> {
  const rows = connection.rows(
    `SELECT DISTINCT key_id FROM ${WRAPPED} AND ${KEK_ID} = ? AND key_id > ? ORDER BY key_id LIMIT ?`,
    Buffer.from(kekId, 'hex'),
    page.after ?? '',
    page.limit + 1,
  );
  return takePage(rows, page.limit, (row) => row['key_id'] as string);
}

/** Keys, and audit records, that one page looks at: all else waits for this thread meanwhile. */
const KEYS_LOOKED_AT_MAX = 1_000;
const RECORDS_LOOKED_AT_MAX = 10_000;

export function listUnfetched(
  connection: Connection,
  audit: AuditTable,
  kekId: string,
  page: PageQuery<string>,
): ForwardPage {
  const names: string[] = [];
  const left = { keys: KEYS_LOOKED_AT_MAX, records: RECORDS_LOOKED_AT_MAX };
  for (const row of connection.rows(
    'SELECT id, name, state, kek_ids FROM keys WHERE name > ? ORDER BY name',
    page.after ?? '',
  )) {
    const name = row['name'] as string;
    const concerns = row['state'] !== 'destroyed' && (row['kek_ids'] as string).split(',').includes(kekId);
    if (concerns && isUnfetched(connection, audit, { id: row['id'] as string, name }, left)) names.push(name);
    if (names.length === page.limit || --left.keys === 0 || left.records <= 0) return { names, next: name };
  }
  return { names };
}

/** Whether a version that is still there was released before the key was rewrapped, and not since. */
function isUnfetched(
  connection: Connection,
  audit: AuditTable,
  { id, name }: { readonly id: string; readonly name: string },
  left: { records: number },
): boolean {
  const rewrapped = audit.lastRewrap(name);
  if (rewrapped === undefined) return false;
  const unfetched = new Set<number>();
  for (const row of connection.rows(
    'SELECT version FROM key_versions WHERE key_id = ? AND length(wrapped) > 0',
    id,
  ))
    unfetched.add(row['version'] as number);
  let looked = 0;
  for (const { seq, version } of audit.releases(name)) {
    if (unfetched.size === 0) return false;
    left.records--;
    // Too many to say: it counts as not fetched.
    if (++looked === RECORDS_LOOKED_AT_MAX) return true;
    if (version === undefined) continue;
    if (seq > rewrapped) unfetched.delete(version);
    else if (unfetched.has(version)) return true;
  }
  return false;
}

function secretsOf(connection: Connection): Uint8Array[] {
  const installation = readInstallation(connection);
  return installation === undefined ? [] : [installation.chainKeyWrapped, installation.signingSeedWrapped];
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
