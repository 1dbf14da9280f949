import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { kekIdOf } from '../../vault/vault.ts';
import type { ForwardPage, KekUse, KeyVersionRecord, NamedKey, Page, PageQuery } from '../port.ts';
import { lastChange, lastChanges } from './audit-table.ts';
import { readInstallation } from './installation-table.ts';
import { allVersions, findKeysById, keysAfter, storedKey } from './key-table.ts';
import type { Session } from './session.ts';

/** As the condition and the expression of the index: only so PostgreSQL uses it. */
const WRAPPED = 'key_versions WHERE length(wrapped) > 0';
const KEK_ID = 'substr(wrapped, 2, 8)';

/** Tells whether all bytes that a change brings are wrapped with this KEK. */
export function isWrappedWith(versions: readonly KeyVersionRecord[], kekId: string | undefined): boolean {
  return versions.every(({ wrapped }) => wrapped.length === 0 || kekIdOf(wrapped) === kekId);
}

/** Sees one state only inside a snapshot. */
export async function kekUses(session: Session): Promise<KekUse[]> {
  const rows = await session.rows(
    `SELECT encode(${KEK_ID}, 'hex') AS kek_id, count(*) AS versions FROM ${WRAPPED} GROUP BY ${KEK_ID}`,
  );
  const uses = new Map(
    rows.map((row) => [row['kek_id'] as string, { versions: row['versions'] as number, secrets: 0 }]),
  );
  for (const wrapped of await secretsOf(session)) {
    const kekId = kekIdOf(wrapped) ?? '';
    const use = uses.get(kekId) ?? { versions: 0, secrets: 0 };
    uses.set(kekId, { ...use, secrets: use.secrets + 1 });
  }
  return [...uses]
    .map(([kekId, use]) => ({ kekId, ...use }))
    .sort((one, other) => (one.kekId < other.kekId ? -1 : 1));
}

export async function countWrappedOtherwise(session: Session, kekId: string): Promise<number> {
  const row = await session.row(
    `SELECT (SELECT count(*) FROM ${WRAPPED} AND ${KEK_ID} < $1) + (SELECT count(*) FROM ${WRAPPED} AND ${KEK_ID} > $1) AS count`,
    Buffer.from(kekId, 'hex'),
  );
  return row?.['count'] as number;
}

/** Whether a version of a key, or a secret of the service, is wrapped with the KEK. */
export async function isKekInUse(session: Session, kekId: string): Promise<boolean> {
  const row = await session.row(
    `SELECT 1 FROM ${WRAPPED} AND ${KEK_ID} = $1 LIMIT 1`,
    Buffer.from(kekId, 'hex'),
  );
  return row !== undefined || (await secretsOf(session)).some((wrapped) => kekIdOf(wrapped) === kekId);
}

/** Versions that a page of keys with all of theirs brings; a further key may add its own. */
const VERSIONS_OF_PAGE_MAX = 1_000;

/** Sees one state only inside a snapshot. */
export async function listWrapped(
  session: Session,
  kekId: string,
  page: PageQuery<string>,
): Promise<Page<NamedKey>> {
  const rows = await session.rows(
    `SELECT key_id, (SELECT count(*) FROM key_versions AS v WHERE v.key_id = found.key_id) AS versions
       FROM (SELECT DISTINCT key_id FROM ${WRAPPED} AND ${KEK_ID} = $1 AND key_id > $2 ORDER BY key_id LIMIT $3) AS found
       ORDER BY key_id`,
    Buffer.from(kekId, 'hex'),
    page.after ?? '',
    page.limit + 1,
  );
  const ids: string[] = [];
  for (let versions = 0; ids.length < Math.min(page.limit, rows.length); ) {
    const row = rows[ids.length];
    ids.push(row?.['key_id'] as string);
    versions += row?.['versions'] as number;
    if (versions >= VERSIONS_OF_PAGE_MAX) break;
  }
  const records = new Map((await findKeysById(session, ids)).map((record) => [record.id, record]));
  const versions = await allVersions(session, ids);
  const changes = await lastChanges(
    session,
    [...records.values()].map(({ name }) => name),
  );
  const items: NamedKey[] = [];
  for (const id of ids) {
    const record = records.get(id);
    items.push(record === undefined ? await orphan(session, id) : storedKey(record, versions, changes));
  }
  return { items, more: ids.length < rows.length };
}

/** The key's row was removed and its version left: nothing is known of that version. */
async function orphan(session: Session, id: string): Promise<NamedKey> {
  const change: AuditRecord | undefined = await lastChange(session, id);
  return { name: id, record: undefined, versions: [], lastChange: change };
}

/** Keys, and audit records, that one page looks at. */
const KEYS_LOOKED_AT_MAX = 250;
const RECORDS_LOOKED_AT_MAX = 10_000;

/** Sees one state only inside a snapshot. */
export async function listUnfetched(
  session: Session,
  kekId: string,
  page: PageQuery<string>,
): Promise<ForwardPage> {
  const names: string[] = [];
  const left = { records: RECORDS_LOOKED_AT_MAX };
  const keys = await keysAfter(session, page.after ?? '', KEYS_LOOKED_AT_MAX);
  for (const [index, { id, name, state, kekIds }] of keys.entries()) {
    const concerns = state !== 'destroyed' && kekIds.includes(kekId);
    if (concerns && (await isUnfetched(session, { id, name }, left))) names.push(name);
    const isLast = index === KEYS_LOOKED_AT_MAX - 1;
    if (names.length === page.limit || isLast || left.records <= 0) return { names, next: name };
  }
  return { names };
}

/** Whether a version that is still there was released before the key was rewrapped, and not since. */
async function isUnfetched(
  session: Session,
  { id, name }: { readonly id: string; readonly name: string },
  left: { records: number },
): Promise<boolean> {
  const row = await session.row(
    `SELECT seq FROM audit WHERE key = $1 AND strpos(detail, '"revision":') > 0 AND action = 'kek.rewrap' ORDER BY seq DESC LIMIT 1`,
    name,
  );
  if (row === undefined) return false;
  const rewrapped = row['seq'] as number;
  const rows = await session.rows(
    'SELECT version FROM key_versions WHERE key_id = $1 AND length(wrapped) > 0',
    id,
  );
  const unfetched = new Set(rows.map((one) => one['version'] as number));
  const releases = await session.rows(
    `SELECT version, count(*) AS looked, max(seq) FILTER (WHERE action = 'key.export' AND outcome = 'allowed') AS last
       FROM (SELECT * FROM audit WHERE key = $1 ORDER BY seq DESC LIMIT ${RECORDS_LOOKED_AT_MAX}) AS looked_at GROUP BY version`,
    name,
  );
  let looked = 0;
  for (const release of releases) {
    looked += release['looked'] as number;
    const [version, last] = [release['version'] as number | null, release['last'] as number | null];
    if (version === null || last === null || !unfetched.has(version)) continue;
    if (last < rewrapped) return true;
    unfetched.delete(version);
  }
  left.records -= looked;
  // Too many to say: it counts as not fetched.
  return unfetched.size > 0 && looked === RECORDS_LOOKED_AT_MAX;
}

async function secretsOf(session: Session): Promise<Uint8Array[]> {
  const installation = await readInstallation(session);
  return installation === undefined ? [] : [installation.chainKeyWrapped, installation.signingSeedWrapped];
}
