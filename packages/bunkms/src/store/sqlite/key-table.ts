import { AppError } from '@bundoc/shared/contract/app-error';
import { globMatches } from '@bundoc/shared/contract/grants';
import type { KeyRecord, KeyVersionRecord } from '../../records/key-record.ts';
import { globRanges } from '../glob-ranges.ts';
import type {
  FilteredPage,
  KeyChange,
  KeyUpdate,
  KeyVersionStamp,
  Page,
  PageQuery,
  VersionChoice,
} from '../port.ts';
import { keyRecordOf, keyValuesOf, keyVersionOf } from '../row-records.ts';
import type { Connection } from './connection.ts';
import { takePage } from './page.ts';

/** Inside a write transaction. @throws AppError `KEY_EXISTS`. */
export function insertKey(connection: Connection, { record, versions }: KeyChange): void {
  if (findKey(connection, record.name) !== undefined) throw new AppError('KEY_EXISTS');
  putKey(connection, record);
  for (const version of versions) putVersion(connection, version);
}

/** Inside a write transaction that knows of no key with that name or id. */
export function putKey(connection: Connection, record: KeyRecord): void {
  connection.run(
    `INSERT INTO keys (name, type, state, version, revision, exportable, rotate_after_days, due_at, created_at, destroyed_at,
       kek_ids, idempotency_key, idempotency_request, version_digests, holder, offered_to, move, offer_generation, intended_at, id)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ...keyValuesOf(record, record.exportable ? 1 : 0),
    record.id,
  );
}

/** Takes out whatever has that name or that id. Inside a write transaction. */
export function removeKey(connection: Connection, { name, id }: Pick<KeyRecord, 'name' | 'id'>): void {
  connection.run(
    'DELETE FROM key_versions WHERE key_id = ?1 OR key_id IN (SELECT id FROM keys WHERE name = ?2)',
    id,
    name,
  );
  connection.run('DELETE FROM keys WHERE id = ? OR name = ?', id, name);
}

/** Inside a write transaction. @returns false, with nothing written, when the stored key is not the one before. */
export function updateKey(connection: Connection, { record, versions, previous }: KeyUpdate): boolean {
  const changed = connection.run(
    `UPDATE keys SET name = ?, type = ?, state = ?, version = ?, revision = ?, exportable = ?, rotate_after_days = ?, due_at = ?,
       created_at = ?, destroyed_at = ?, kek_ids = ?, idempotency_key = ?, idempotency_request = ?, version_digests = ?, holder = ?,
       offered_to = ?, move = ?, offer_generation = ?, intended_at = ?
     WHERE id = ? AND revision = ? AND version_digests = ?`,
    ...keyValuesOf(record, record.exportable ? 1 : 0),
    previous.id,
    previous.revision,
    previous.versionDigests,
  );
  if (changed === 0) return false;
  for (const version of versions) putVersion(connection, version);
  return true;
}

export function findKey(connection: Connection, name: string): KeyRecord | undefined {
  const row = connection.row('SELECT * FROM keys WHERE name = ?', name);
  return row && keyRecordOf(row);
}

export function findKeyById(connection: Connection, id: string): KeyRecord | undefined {
  const row = connection.row('SELECT * FROM keys WHERE id = ?', id);
  return row && keyRecordOf(row);
}

export function isAsRead(connection: Connection, { id, revision, versionDigests }: KeyVersionStamp): boolean {
  const row = connection.row(
    'SELECT 1 FROM keys WHERE id = ? AND revision = ? AND version_digests = ?',
    id,
    revision,
    versionDigests,
  );
  return row !== undefined;
}

/** The latest key that was made with this idempotency key, not before `since`. */
export function findIdempotent(
  connection: Connection,
  idempotencyKey: string,
  since: string,
): KeyRecord | undefined {
  const row = connection.row(
    `SELECT * FROM keys WHERE idempotency_key = ? AND created_at >= ? ORDER BY created_at DESC LIMIT 1`,
    idempotencyKey,
    since,
  );
  return row && keyRecordOf(row);
}

export function readVersions(
  connection: Connection,
  { id, version }: KeyRecord,
  choice: VersionChoice,
): KeyVersionRecord[] {
  if (choice === 'all')
    return [...connection.rows('SELECT * FROM key_versions WHERE key_id = ? ORDER BY version', id)].map(
      keyVersionOf,
    );
  const row = connection.row(
    'SELECT * FROM key_versions WHERE key_id = ? AND version = ?',
    id,
    choice === 'current' ? version : choice,
  );
  return row === undefined ? [] : [keyVersionOf(row)];
}

/** Names that are held against globs for one page, all globs together: everything else waits for this thread meanwhile. */
const GLOB_MATCHES_MAX = 20_000;
/** Names that a page looks at however many globs there are. */
const LOOKED_AT_MIN = 200;

export function listKeys(
  connection: Connection,
  globs: readonly string[],
  { after = '', limit }: PageQuery<string>,
): FilteredPage<KeyRecord, string> {
  let left = Math.max(LOOKED_AT_MIN, Math.floor(GLOB_MATCHES_MAX / globs.length));
  const items: KeyRecord[] = [];
  for (const { from, isPrefix } of globRanges(globs)) {
    const names = connection.rows(
      'SELECT name FROM keys WHERE name > ? AND name >= ? AND name < ? ORDER BY name',
      after,
      from,
      `${from}${isPrefix ? '\u{10FFFF}' : '\0'}`,
    );
    for (const { name } of names as Iterable<{ name: string }>) {
      const isMatch = globs.some((glob) => globMatches(glob, name));
      if (isMatch && items.length === limit) return { items, more: true };
      const record = isMatch ? findKey(connection, name) : undefined;
      if (record !== undefined) items.push(record);
      if (--left === 0) return { items, more: true, next: name };
    }
  }
  return { items, more: false };
}

export function listDueKeys(connection: Connection, until: string, page: PageQuery<string>): Page<KeyRecord> {
  const rows = connection.rows(
    'SELECT * FROM keys INDEXED BY keys_by_due WHERE due_at <= ? AND name > ? ORDER BY name LIMIT ?',
    until,
    page.after ?? '',
    page.limit + 1,
  );
  return takePage(rows, page.limit, keyRecordOf);
}

const DELETIONS = 'keys INDEXED BY keys_by_deletion WHERE intended_at IS NOT NULL AND holder IS NOT NULL';

/** Keys that their holder wants shredded. */
export function listDeletions(
  connection: Connection,
  holder: string,
  page: PageQuery<string>,
): Page<KeyRecord> {
  const rows = connection.rows(
    `SELECT * FROM ${DELETIONS} AND holder = ? AND name > ? ORDER BY name LIMIT ?`,
    holder,
    page.after ?? '',
    page.limit + 1,
  );
  return takePage(rows, page.limit, keyRecordOf);
}

/** How many keys are to be shredded, or were and have content yet. */
export function countDeletions(connection: Connection): number {
  return connection.row(`SELECT count(*) AS count FROM ${DELETIONS}`)?.['count'] as number;
}

/** All keys as they are stored, by name. */
export function* allKeys(connection: Connection): Generator<KeyRecord, void, undefined> {
  for (const row of connection.rows('SELECT * FROM keys ORDER BY name')) yield keyRecordOf(row);
}

/** Inside a write transaction; the key is there. */
export function putVersion(connection: Connection, version: KeyVersionRecord): void {
  connection.run(
    `INSERT INTO key_versions (key_id, version, kcv, state, created_at, destroyed_at, wrapped) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (key_id, version) DO UPDATE SET kcv = excluded.kcv, state = excluded.state,
         created_at = excluded.created_at, destroyed_at = excluded.destroyed_at, wrapped = excluded.wrapped`,
    version.keyId,
    version.version,
    version.kcv,
    version.state,
    version.createdAt,
    version.destroyedAt,
    version.wrapped,
  );
}
