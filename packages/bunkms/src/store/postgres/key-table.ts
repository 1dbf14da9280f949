import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { globMatches } from '@bundoc/shared/contract/grants';
import type { KeyRecord, KeyVersionRecord, StoredKey } from '../../records/key-record.ts';
import { globRanges } from '../glob-ranges.ts';
import type { FilteredPage, KeyChange, KeyUpdate, KeyVersionStamp, Page, PageQuery } from '../port.ts';
import { keyRecordOf, keyValuesOf, keyVersionIn, keyVersionOf, type Row } from '../row-records.ts';
import { joinedRecordOf, latestChangeOf, PREFIXED } from './audit-table.ts';
import { pageOf } from './page.ts';
import { noteRemoval } from './scrub.ts';
import type { Session } from './session.ts';

/** Inside a write that knows of no key with that name or id. */
export async function putKey(session: Session, record: KeyRecord): Promise<void> {
  await session.run(
    `INSERT INTO keys (name, type, state, version, revision, exportable, rotate_after_days, due_at, created_at, destroyed_at,
       kek_ids, idempotency_key, idempotency_request, version_digests, holder, offered_to, move, offer_generation, intended_at, id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`,
    ...keyValuesOf(record, record.exportable),
    record.id,
  );
}

/** Takes out whatever has that name or that id. Inside a write. */
export async function removeKey(
  session: Session,
  { name, id }: Pick<KeyRecord, 'name' | 'id'>,
): Promise<void> {
  const removed = await session.run(
    'DELETE FROM key_versions WHERE key_id = $1 OR key_id IN (SELECT id FROM keys WHERE name = $2)',
    id,
    name,
  );
  if (removed > 0) await noteRemoval(session);
  await session.run('DELETE FROM keys WHERE id = $1 OR name = $2', id, name);
}

/** Inside a write. @returns false, with nothing written, when the stored key is not the one before. */
export async function updateKey(
  session: Session,
  { record, versions, previous }: KeyUpdate,
): Promise<boolean> {
  const changed = await session.run(
    `UPDATE keys SET name = $1, type = $2, state = $3, version = $4, revision = $5, exportable = $6, rotate_after_days = $7,
       due_at = $8, created_at = $9, destroyed_at = $10, kek_ids = $11, idempotency_key = $12, idempotency_request = $13,
       version_digests = $14, holder = $15, offered_to = $16, move = $17, offer_generation = $18, intended_at = $19
     WHERE id = $20 AND revision = $21 AND version_digests = $22`,
    ...keyValuesOf(record, record.exportable),
    previous.id,
    previous.revision,
    previous.versionDigests,
  );
  if (changed === 0) return false;
  await putVersions(session, versions);
  return true;
}

export async function insertKey(session: Session, { record, versions }: KeyChange): Promise<void> {
  await putKey(session, record);
  await putVersions(session, versions);
}

export async function findKey(session: Session, name: string): Promise<KeyRecord | undefined> {
  const row = await session.row('SELECT * FROM keys WHERE name = $1', name);
  return row && keyRecordOf(row);
}

export async function findKeysById(session: Session, ids: readonly string[]): Promise<KeyRecord[]> {
  return (await session.rows('SELECT * FROM keys WHERE id = ANY($1::text[])', ids)).map(keyRecordOf);
}

/** What {@link findStoredKeys} is asked for: a name, and a version unless it is the current one. */
export function keyQuestion(name: string, version: number | undefined): string {
  return `${version ?? ''} ${name}`;
}

/** Keys with one of their versions and their latest change, all of one moment, by what was asked. */
export async function findStoredKeys(
  session: Session,
  questions: readonly string[],
): Promise<Map<string, StoredKey>> {
  const asked = questions.map((question) => {
    const at = question.indexOf(' ');
    return { version: at === 0 ? null : Number(question.slice(0, at)), name: question.slice(at + 1) };
  });
  const rows = await session.rows(
    `SELECT k.*, v.key_id AS v_key_id, v.version AS v_version, v.kcv AS v_kcv, v.state AS v_state, v.created_at AS v_created_at,
         v.destroyed_at AS v_destroyed_at, v.wrapped AS v_wrapped, ${PREFIXED}, q.place::integer AS place
       FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS q (name, version, place)
       LEFT JOIN keys AS k ON k.name = q.name
       LEFT JOIN key_versions AS v ON v.key_id = k.id AND v.version = coalesce(q.version, k.version)
       LEFT JOIN LATERAL (${latestChangeOf('q.name')}) AS a ON true`,
    asked.map(({ name }) => name),
    asked.map(({ version }) => version),
  );
  return new Map(
    rows.map((row) => [String(questions[(row['place'] as number) - 1]), storedKeyOf(row)] as const),
  );
}

/** {@link findStoredKeys} for one. */
export async function findStoredKey(
  session: Session,
  name: string,
  version: number | undefined,
): Promise<StoredKey> {
  const question = keyQuestion(name, version);
  return (await findStoredKeys(session, [question])).get(question) ?? NOTHING;
}

/** What there is on a name that was never a key's. */
export const NOTHING: StoredKey = { record: undefined, versions: [], lastChange: undefined };

function storedKeyOf(row: Row): StoredKey {
  return {
    record: row['id'] === null ? undefined : keyRecordOf(row),
    versions: row['v_key_id'] === null ? [] : [keyVersionIn(row, 'v_')],
    lastChange: joinedRecordOf(row),
  };
}

/** Places, in `marks`, of the keys that are as they were read. */
export async function placesAsRead(
  session: Session,
  marks: readonly KeyVersionStamp[],
): Promise<Set<number>> {
  if (marks.length === 0) return new Set();
  const rows = await session.rows(
    `SELECT m.place::integer AS place
       FROM unnest($1::text[], $2::integer[], $3::bytea[]) WITH ORDINALITY AS m (id, revision, digests, place)
       JOIN keys AS k ON k.id = m.id AND k.revision = m.revision AND k.version_digests = m.digests`,
    marks.map(({ id }) => id),
    marks.map(({ revision }) => revision),
    marks.map(({ versionDigests }) => Buffer.from(versionDigests)),
  );
  return new Set(rows.map((row) => (row['place'] as number) - 1));
}

/** The latest key that was made with this idempotency key, not before `since`. */
export async function findIdempotent(
  session: Session,
  idempotencyKey: string,
  since: string,
): Promise<KeyRecord | undefined> {
  const row = await session.row(
    `SELECT * FROM keys WHERE idempotency_key = $1 AND created_at >= $2 ORDER BY created_at DESC LIMIT 1`,
    idempotencyKey,
    since,
  );
  return row && keyRecordOf(row);
}

/** All versions of keys, in ascending order, by the id of the key. */
export async function allVersions(
  session: Session,
  ids: readonly string[],
): Promise<Map<string, KeyVersionRecord[]>> {
  const rows = await session.rows(
    'SELECT * FROM key_versions WHERE key_id = ANY($1::text[]) ORDER BY key_id, version',
    ids,
  );
  return Map.groupBy(rows.map(keyVersionOf), ({ keyId }) => keyId);
}

/** The current version of keys, by the id of the key. */
export async function currentVersions(
  session: Session,
  ids: readonly string[],
): Promise<Map<string, KeyVersionRecord[]>> {
  const rows = await session.rows(
    `SELECT v.* FROM keys AS k JOIN key_versions AS v ON v.key_id = k.id AND v.version = k.version WHERE k.id = ANY($1::text[])`,
    ids,
  );
  return Map.groupBy(rows.map(keyVersionOf), ({ keyId }) => keyId);
}

/** Names that are held against globs for one page, all globs together. */
const GLOB_MATCHES_MAX = 20_000;
/** Names that a page looks at however many globs there are, and how many at once. */
const LOOKED_AT_MIN = 200;
const LOOK = 1_000;

/** Sees one state only inside a snapshot. */
export async function listKeys(
  session: Session,
  globs: readonly string[],
  { after = '', limit }: PageQuery<string>,
): Promise<FilteredPage<KeyRecord, string>> {
  const found = await matchingNames(session, globs, { after, limit });
  const rows = await session.rows(
    'SELECT * FROM keys WHERE name = ANY($1::text[]) ORDER BY name',
    found.items,
  );
  return { ...found, items: rows.map(keyRecordOf) };
}

async function matchingNames(
  session: Session,
  globs: readonly string[],
  { after, limit }: { readonly after: string; readonly limit: number },
): Promise<FilteredPage<string, string>> {
  let left = Math.max(LOOKED_AT_MIN, Math.floor(GLOB_MATCHES_MAX / globs.length));
  const items: string[] = [];
  for (const { from, isPrefix } of globRanges(globs)) {
    const range = isPrefix ? 'name >= $2 AND name < $3' : 'name >= $2 AND name <= $3';
    for (let last = after, more = true; more; ) {
      const rows = await session.rows(
        `SELECT name FROM keys WHERE name > $1 AND ${range} ORDER BY name LIMIT $4`,
        last,
        from,
        isPrefix ? `${from}\u{10FFFF}` : from,
        Math.min(left, LOOK),
      );
      more = rows.length === Math.min(left, LOOK);
      for (const { name } of rows as { name: string }[]) {
        last = name;
        const isMatch = globs.some((glob) => globMatches(glob, name));
        if (isMatch && items.length === limit) return { items, more: true };
        if (isMatch) items.push(name);
        if (--left === 0) return { items, more: true, next: name };
      }
    }
  }
  return { items, more: false };
}

export async function listDueKeys(
  session: Session,
  until: string,
  page: PageQuery<string>,
): Promise<Page<KeyRecord>> {
  const rows = await session.rows(
    'SELECT * FROM keys WHERE due_at IS NOT NULL AND due_at <= $1 AND name > $2 ORDER BY name LIMIT $3',
    until,
    page.after ?? '',
    page.limit + 1,
  );
  return pageOf(rows, page.limit, keyRecordOf);
}

const DELETIONS = 'keys WHERE intended_at IS NOT NULL AND holder IS NOT NULL';

/** Keys that their holder wants shredded. */
export async function listDeletions(
  session: Session,
  holder: string,
  page: PageQuery<string>,
): Promise<Page<KeyRecord>> {
  const rows = await session.rows(
    `SELECT * FROM ${DELETIONS} AND holder = $1 AND name > $2 ORDER BY name LIMIT $3`,
    holder,
    page.after ?? '',
    page.limit + 1,
  );
  return pageOf(rows, page.limit, keyRecordOf);
}

/** How many keys are to be shredded, or were and have content yet. */
export async function countDeletions(session: Session): Promise<number> {
  return (await session.row(`SELECT count(*) AS count FROM ${DELETIONS}`))?.['count'] as number;
}

/** Keys behind a name, as they are stored, by name. */
export async function keysAfter(session: Session, after: string, limit: number): Promise<KeyRecord[]> {
  const rows = await session.rows('SELECT * FROM keys WHERE name > $1 ORDER BY name LIMIT $2', after, limit);
  return rows.map(keyRecordOf);
}

/** Inside a write; the key is there. */
export async function putVersions(session: Session, versions: readonly KeyVersionRecord[]): Promise<void> {
  if (versions.length === 0) return;
  const rows = await session.rows(
    `INSERT INTO key_versions (key_id, version, kcv, state, created_at, destroyed_at, wrapped)
       SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
     ON CONFLICT (key_id, version) DO UPDATE SET kcv = excluded.kcv, state = excluded.state,
       created_at = excluded.created_at, destroyed_at = excluded.destroyed_at, wrapped = excluded.wrapped
     RETURNING xmax <> 0 AS replaced`,
    versions.map(({ keyId }) => keyId),
    versions.map(({ version }) => version),
    versions.map(({ kcv }) => kcv),
    versions.map(({ state }) => state),
    versions.map(({ createdAt }) => createdAt),
    versions.map(({ destroyedAt }) => destroyedAt),
    versions.map(({ wrapped }) => Buffer.from(wrapped)),
  );
  if (rows.some((row) => row['replaced'] === true)) await noteRemoval(session);
}

/** A key with what was read of it apart. */
export function storedKey(
  record: KeyRecord,
  versions: ReadonlyMap<string, KeyVersionRecord[]>,
  changes: ReadonlyMap<string, AuditRecord>,
): StoredKey & { readonly name: string } {
  const { id, name } = record;
  return { name, record, versions: versions.get(id) ?? [], lastChange: changes.get(name) };
}
