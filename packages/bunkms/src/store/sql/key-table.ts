import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { globMatches } from '@bundoc/shared/contract/grants';
import type { KeyRecord, KeyVersionRecord, NamedKey, StoredKey } from '../../records/key-record.ts';
import type { KeyChange, KeyUpdate, KeyVersionStamp } from '../keys.ts';
import type { FilteredPage, Page, PageQuery } from '../page.ts';
import { type AuditTable, JOINED_RECORD, joinedRecordOf } from './audit-table.ts';
import type { Dialect } from './dialect.ts';
import { globRanges } from './glob-ranges.ts';
import { pageOf } from './page-of.ts';
import { keyRecordOf, keyValuesOf, keyVersionIn, keyVersionOf, type Row } from './row-records.ts';
import { each, firstOfEach, insert, row, rows, run, runOne, type Sql } from './statement.ts';

const VERSION_COLUMNS = [
  ['key_id', 'text'],
  ['version', 'integer'],
  ['kcv', 'text'],
  ['state', 'text'],
  ['created_at', 'text'],
  ['destroyed_at', 'text'],
  ['wrapped', 'bytea'],
] as const;
const JOINED_VERSION = VERSION_COLUMNS.map(([name]) => `v.${name} AS v_${name}`).join(', ');

/** Maximum comparisons of names with globs for one page: other calls wait. */
const GLOB_MATCHES_MAX = 20_000;
/** Minimum names that a page reads, however many globs there are, and maximum names at once. */
const SCANNED_MIN = 200;
const BATCH_MAX = 1_000;

/** The name of a key, and a version; null for the current one. */
export type KeyQuery = readonly [name: string, version: number | null];

/** The result for a name that was never used. */
export const NOTHING: StoredKey = { record: undefined, versions: [], lastChange: undefined };

/** The tables of keys and their versions. */
export class KeyTable {
  readonly #dialect: Dialect;
  readonly #audit: AuditTable;
  readonly #stored;
  readonly #unchanged;
  readonly #byId;
  readonly #byName;
  readonly #allVersions;
  readonly #currentVersion;
  readonly #putVersions;

  constructor(dialect: Dialect, audit: AuditTable) {
    this.#dialect = dialect;
    this.#audit = audit;
    const { forEach } = dialect;
    this.#stored = forEach(
      ['text', 'bigint'],
      (name, version) => `SELECT k.*, ${JOINED_VERSION}, ${JOINED_RECORD} FROM (SELECT 1) AS one
        LEFT JOIN keys AS k ON k.name = ${name}
        LEFT JOIN key_versions AS v ON v.key_id = k.id AND v.version = coalesce(${version}, k.version)
        ${dialect.leftJoinAudit((columns) => audit.latestChangeOf(name, columns))}`,
    );
    this.#unchanged = forEach(
      ['text', 'integer', 'bytea'],
      (id, revision, digests) =>
        `SELECT 1 AS found FROM keys WHERE id = ${id} AND revision = ${revision} AND version_digests = ${digests}`,
    );
    this.#byId = forEach(['text'], (id) => `SELECT * FROM keys WHERE id = ${id}`);
    this.#byName = forEach(['text'], (name) => `SELECT * FROM keys WHERE name = ${name}`);
    this.#allVersions = forEach(
      ['text'],
      (id) => `SELECT * FROM key_versions WHERE key_id = ${id} ORDER BY version`,
    );
    this.#currentVersion = forEach(
      ['text'],
      (id) =>
        `SELECT v.* FROM keys AS k JOIN key_versions AS v ON v.key_id = k.id AND v.version = k.version WHERE k.id = ${id}`,
    );
    this.#putVersions = dialect.insertEach(
      'key_versions',
      VERSION_COLUMNS,
      `ON CONFLICT (key_id, version) DO UPDATE SET kcv = excluded.kcv, state = excluded.state,
         created_at = excluded.created_at, destroyed_at = excluded.destroyed_at, wrapped = excluded.wrapped
       ${dialect.returningReplaced}`,
    );
  }

  /** Inside a write. No key with that name or id may exist. */
  *put(record: KeyRecord): Sql<void> {
    yield* runOne(
      `INSERT INTO keys (name, type, state, version, revision, exportable, rotate_after_days, due_at, created_at, destroyed_at,
         kek_ids, idempotency_key, idempotency_request, version_digests, holder, offered_to, move, offer_generation, intended_at, outside, id)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`,
      ...keyValuesOf(record),
      record.id,
    );
  }

  /** Inside a write. The keys must exist. */
  *putVersions(versions: readonly KeyVersionRecord[]): Sql<void> {
    const stored = yield* insert(
      this.#putVersions,
      versions.map(({ keyId, version, kcv, state, createdAt, destroyedAt, wrapped }) => [
        ...[keyId, version, kcv, state, createdAt, destroyedAt, wrapped],
      ]),
    );
    if (stored.some((one) => one['replaced'] === true)) yield* this.#noteRemoval();
  }

  *insert({ record, versions }: KeyChange): Sql<void> {
    yield* this.put(record);
    yield* this.putVersions(versions);
  }

  /** Removes all keys with that name or that id. Inside a write. */
  *remove({ name, id }: Pick<KeyRecord, 'name' | 'id'>): Sql<void> {
    const removed = yield* run(
      'DELETE FROM key_versions WHERE key_id = $1 OR key_id IN (SELECT id FROM keys WHERE name = $2)',
      id,
      name,
    );
    if (removed > 0) yield* this.#noteRemoval();
    yield* run('DELETE FROM keys WHERE id = $1 OR name = $2', id, name);
  }

  /** Inside a write. @returns false, with nothing written, when the stored key is not `previous`. */
  *update({ record, versions, previous }: KeyUpdate): Sql<boolean> {
    const changed = yield* run(
      `UPDATE keys SET name = $1, type = $2, state = $3, version = $4, revision = $5, exportable = $6, rotate_after_days = $7,
         due_at = $8, created_at = $9, destroyed_at = $10, kek_ids = $11, idempotency_key = $12, idempotency_request = $13,
         version_digests = $14, holder = $15, offered_to = $16, move = $17, offer_generation = $18, intended_at = $19,
         outside = $20
       WHERE id = $21 AND revision = $22 AND version_digests = $23`,
      ...keyValuesOf(record),
      previous.id,
      previous.revision,
      previous.versionDigests,
    );
    if (changed === 0) return false;
    yield* this.putVersions(versions);
    return true;
  }

  *#noteRemoval(): Sql<void> {
    if (this.#dialect.noteRemoval !== undefined) yield* run(this.#dialect.noteRemoval);
  }

  /** Keys with one of their versions and their latest change, in the order of the queries. */
  *findStored(questions: readonly KeyQuery[]): Sql<StoredKey[]> {
    const found = yield* each(this.#stored, questions);
    return questions.map((_, at) => {
      const joined = found[at]?.[0];
      return joined === undefined ? NOTHING : storedKeyOf(joined);
    });
  }

  /** A key with all its versions. Consistent only inside a snapshot. */
  *findWithAllVersions(name: string): Sql<StoredKey> {
    const found = yield* row('SELECT * FROM keys WHERE name = $1', name);
    const record = found && keyRecordOf(found);
    const versions = record === undefined ? [] : (yield* this.allVersions([record.id])).get(record.id);
    return { record, versions: versions ?? [], lastChange: yield* this.#audit.lastChange(name) };
  }

  /** All versions of keys by key id, in ascending order. */
  *allVersions(ids: readonly string[]): Sql<Map<string, KeyVersionRecord[]>> {
    const found = yield* each(
      this.#allVersions,
      ids.map((id) => [id]),
    );
    return new Map(ids.map((id, at) => [id, (found[at] ?? []).map(keyVersionOf)]));
  }

  /** Keys by their ids. */
  *findById(ids: readonly string[]): Sql<Map<string, KeyRecord>> {
    return recordsOf(yield* firstOfEach(this.#byId, ids));
  }

  /** For each stamp, whether the key is unchanged. */
  *areUnchanged(stamps: readonly KeyVersionStamp[]): Sql<boolean[]> {
    const found = yield* each(
      this.#unchanged,
      stamps.map(({ id, revision, versionDigests }) => [id, revision, versionDigests]),
    );
    return stamps.map((_, at) => (found[at] ?? []).length > 0);
  }

  /** The latest key that was created with this idempotency key at `since` or later. */
  *findIdempotent(idempotencyKey: string, since: string): Sql<KeyRecord | undefined> {
    const found = yield* row(
      'SELECT * FROM keys WHERE idempotency_key = $1 AND created_at >= $2 ORDER BY created_at DESC LIMIT 1',
      idempotencyKey,
      since,
    );
    return found && keyRecordOf(found);
  }

  /** Consistent only inside a snapshot. */
  *list(globs: readonly string[], page: PageQuery<string>): Sql<FilteredPage<NamedKey, string>> {
    const names = yield* matchingNames(globs, page.after ?? '', page.limit);
    const records = recordsOf(yield* firstOfEach(this.#byName, names.items));
    return yield* this.#named({ ...names, items: names.items.flatMap((name) => records.get(name) ?? []) });
  }

  *listDue(until: string, page: PageQuery<string>): Sql<Page<NamedKey>> {
    const due = yield* rows(
      `SELECT * FROM keys ${this.#dialect.indexedBy('keys_by_due')}
        WHERE due_at IS NOT NULL AND due_at <= $1 AND name > $2 ORDER BY name LIMIT $3`,
      until,
      page.after ?? '',
      page.limit + 1,
    );
    return yield* this.#named(pageOf(due, page.limit, keyRecordOf));
  }

  /** Keys of a holder with a deletion intent. */
  *listDeletions(holder: string, page: PageQuery<string>): Sql<Page<NamedKey>> {
    const intended = yield* rows(
      `SELECT * FROM ${this.#deletions} AND holder = $1 AND name > $2 ORDER BY name LIMIT $3`,
      holder,
      page.after ?? '',
      page.limit + 1,
    );
    return yield* this.#named(pageOf(intended, page.limit, keyRecordOf));
  }

  /** Number of keys with a deletion intent, including shredded ones whose content remains. */
  *countDeletions(): Sql<number> {
    return (yield* row(`SELECT count(*) AS count FROM ${this.#deletions}`))?.['count'] as number;
  }

  get #deletions(): string {
    return `keys ${this.#dialect.indexedBy('keys_by_deletion')} WHERE intended_at IS NOT NULL AND holder IS NOT NULL`;
  }

  /** Keys after a name, by name. Not authenticated. */
  *after(after: string, limit: number): Sql<KeyRecord[]> {
    const sql = 'SELECT * FROM keys WHERE name > $1 ORDER BY name LIMIT $2';
    return (yield* rows(sql, after, limit)).map(keyRecordOf);
  }

  /** A page of keys, each with its current version and its latest change. */
  *#named<P extends FilteredPage<KeyRecord, string>>(page: P): Sql<P & FilteredPage<NamedKey, string>> {
    const versions = yield* firstOfEach(
      this.#currentVersion,
      page.items.map(({ id }) => id),
    );
    const changes = yield* this.#audit.lastChanges(page.items.map(({ name }) => name));
    const items = page.items.map((record) => {
      const version = versions.get(record.id);
      return namedKey(record, version === undefined ? [] : [keyVersionOf(version)], changes);
    });
    return { ...page, items };
  }
}

/** Combines a key with its separately read parts. */
export function namedKey(
  record: KeyRecord,
  versions: readonly KeyVersionRecord[],
  changes: ReadonlyMap<string, AuditRecord>,
): NamedKey {
  return { name: record.name, record, versions, lastChange: changes.get(record.name) };
}

function storedKeyOf(joined: Row): StoredKey {
  return {
    record: joined['id'] === null ? undefined : keyRecordOf(joined),
    versions: joined['v_key_id'] === null ? [] : [keyVersionIn(joined, 'v_')],
    lastChange: joinedRecordOf(joined),
  };
}

function recordsOf(found: ReadonlyMap<string, Row>): Map<string, KeyRecord> {
  return new Map([...found].map(([id, one]) => [id, keyRecordOf(one)]));
}

function* matchingNames(
  globs: readonly string[],
  after: string,
  limit: number,
): Sql<FilteredPage<string, string>> {
  let left = Math.max(SCANNED_MIN, Math.floor(GLOB_MATCHES_MAX / globs.length));
  const items: string[] = [];
  // Enough for a page whose names all match; more for others.
  let next = limit + 1;
  for (const { from, isPrefix } of globRanges(globs)) {
    const range = isPrefix ? 'name >= $2 AND name < $3' : 'name >= $2 AND name <= $3';
    const sql = `SELECT name FROM keys WHERE name > $1 AND ${range} ORDER BY name LIMIT $4`;
    for (let last = after, more = true; more; ) {
      const batch = Math.min(left, next, BATCH_MAX);
      next *= 4;
      const found = yield* rows(sql, last, from, isPrefix ? `${from}\u{10FFFF}` : from, batch);
      more = found.length === batch;
      for (const { name } of found as readonly { name: string }[]) {
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
