import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, GENESIS } from '../../records/chain.ts';
import { ChainWalk, isGenuine } from '../../records/chain-walk.ts';
import { KEK_ACTIONS } from '../../records/kek-state.ts';
import { CHAIN_RESTORED } from '../../records/restore-record.ts';
import { STORAGE_ACTIONS } from '../../records/storage-record.ts';
import {
  type AuditQuery,
  BULK_ACTIONS,
  INNER_USE_ACTIONS,
  type ReleasePageQuery,
  USE_ACTIONS,
} from '../audit.ts';
import type { BackwardPage, FilteredPage, Page, PageQuery } from '../page.ts';
import type { StorageStamp } from '../storages.ts';
import { Untrusted } from '../trust.ts';
import type { Dialect } from './dialect.ts';
import { pageOf } from './page-of.ts';
import { auditRecordIn, auditRecordOf, detailText, parseDetail, type Row } from './row-records.ts';
import { each, firstOfEach, row, rows, type Sql, type SqlValue } from './statement.ts';

/** Columns of the table, in order. */
export const AUDIT_COLUMNS = [
  ['seq', 'bigint'],
  ['time', 'text'],
  ['severity', 'text'],
  ['action', 'text'],
  ['outcome', 'text'],
  ['actor', 'text'],
  ['jti', 'text'],
  ['key', 'text'],
  ['version', 'integer'],
  ['source', 'text'],
  ['request_id', 'text'],
  ['code', 'text'],
  ['detail', 'text'],
  ['prev_hash', 'text'],
  ['hash', 'text'],
] as const;

/** Values of {@link AUDIT_COLUMNS}. */
export function auditValuesOf(record: AuditRecord) {
  return [
    record.seq,
    record.time,
    record.severity,
    record.action,
    record.outcome,
    record.actor ?? null,
    record.jti ?? null,
    record.key ?? null,
    record.version ?? null,
    record.source ?? null,
    record.request_id ?? null,
    record.code ?? null,
    detailText(record),
    record.prev_hash,
    record.hash,
  ] as const;
}

/** Columns of a record, with names that differ from those of the joined table. */
export const JOINED_RECORD = AUDIT_COLUMNS.map(([name]) => `a.${name} AS a_${name}`).join(', ');

/** The record in a joined row with {@link JOINED_RECORD}; undefined when there is none. */
export function joinedRecordOf(joined: Row): AuditRecord | undefined {
  return joined['a_seq'] === null ? undefined : auditRecordIn(joined, 'a_');
}

/** The last record: see {@link headForWrite}. */
export const LAST_RECORD = 'SELECT * FROM audit ORDER BY seq DESC LIMIT 1';
/** The hash of the record with a number. */
export const HASH_AT = 'SELECT hash FROM audit WHERE seq = $1';

function headOf(last: Row | undefined): ChainHead {
  return last === undefined ? GENESIS : toReceipt(last);
}

/**
 * The place that a write continues, from {@link LAST_RECORD}.
 *
 * @param known a record that the chain must contain, and `hash` what {@link HASH_AT} found there.
 * @param chainKey undefined before the chain begins.
 * @throws Untrusted when the chain lacks that record, or its last record is not genuine.
 */
export function headForWrite(
  last: Row | undefined,
  known: ChainHead | undefined,
  hash: unknown,
  chainKey: KeyObject | undefined,
): ChainHead {
  const head = headOf(last);
  if (known !== undefined && head.seq === known.seq && head.hash === known.hash) return head;
  if (known !== undefined && hash !== known.hash) throw missingRecord(known.seq);
  if (last !== undefined && chainKey !== undefined && !isGenuine(chainKey, auditRecordOf(last)))
    throw new Untrusted(`record ${head.seq}, the last one of the audit chain, is not genuine`);
  return head;
}

/**
 * Reads the records of a write after its commit, with the record before them.
 *
 * @param first of its records.
 * @param last what the write has appended last.
 * @param table the table of the chain.
 * @throws Untrusted when they are not exactly those, in one chain.
 */
export function* requireStored(
  chainKey: KeyObject,
  first: ChainHead,
  last: ChainHead,
  table = 'audit',
): Sql<void> {
  const sql = `SELECT * FROM ${table} WHERE seq >= $1 AND seq <= $2 ORDER BY seq`;
  const found = (yield* rows(sql, first.seq - 1, last.seq)).map(auditRecordOf);
  const before = first.seq === 1 ? GENESIS : found.shift();
  const walk = new ChainWalk(chainKey, before ?? GENESIS);
  for (const record of found) walk.take(record);
  if (walk.fault !== undefined) throw missingRecord(walk.fault.seq);
  if (walk.head.seq !== last.seq || walk.head.hash !== last.hash) throw missingRecord(last.seq);
}

/** The known head after `TrustStore.expectHead`. */
export function laterHead(known: ChainHead | undefined, head: ChainHead | undefined): ChainHead | undefined {
  return head !== undefined && known !== undefined && known.seq > head.seq ? known : head;
}

function missingRecord(seq: number): Untrusted {
  return new Untrusted(`the audit chain lacks its record ${seq}`);
}

/** Exactly the conditions of the indexes: otherwise the indexes are not used. */
const BUT_BULK = `action NOT IN (${listOf(BULK_ACTIONS)})`;
const BUT_USES = `action NOT IN (${listOf(USE_ACTIONS)})`;
const OF_KEKS = `action IN (${listOf(KEK_ACTIONS)})`;
const OF_STORAGES = `action IN (${listOf(STORAGE_ACTIONS)})`;
const IS_RELEASE = `action = 'key.export' AND outcome = 'allowed'`;

/**
 * Where a list begins: the smallest 64-bit number, because somebody who can write to the database can add
 * records before the first.
 */
const BEFORE_ALL = '-9223372036854775808';
/** Maximum records that one page reads, and how many at once: refusals may be many, and other calls wait. */
const PAGE_RECORDS_MAX = 10_000;
const BATCH_MIN = 100;
const BATCH_MAX = 1_000;

/** The table of the audit chain, with its queries. */
export class AuditTable {
  readonly #dialect: Dialect;
  readonly #lastChanges;
  readonly #placesOfLastChanges;
  readonly #placeOfLastChange: string;
  readonly #storageRecords;
  readonly #storagePlaces;
  readonly #at;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
    const { forEach } = dialect;
    this.#lastChanges = forEach(['text'], (key) => this.latestChangeOf(key));
    this.#placesOfLastChanges = forEach(['text'], (key) => this.latestChangeOf(key, 'seq, hash'));
    this.#placeOfLastChange = this.latestChangeOf('$1', 'seq, hash');
    this.#storageRecords = forEach(['text'], (id) => this.latestOfStorage(id));
    this.#storagePlaces = forEach(['text'], (id) => this.latestOfStorage(id, 'seq'));
    this.#at = forEach(['bigint'], (seq) => `SELECT * FROM ${dialect.auditTable} WHERE seq = ${seq}`);
  }

  /**
   * A query for the latest change of the key that an expression names: a record whose detail has a revision.
   * In JSON no string can be mistaken for that member.
   */
  latestChangeOf(key: string, columns = '*', more = ''): string {
    const { indexedBy, contains, newestFirst } = this.#dialect;
    return `SELECT ${columns} FROM audit ${indexedBy('audit_key_changes')}
      WHERE key = ${key} AND ${contains('detail', `'"revision":'`)} ${more} ORDER BY ${newestFirst('seq')} LIMIT 1`;
  }

  /** A query for the latest record of the storage that an expression names. */
  latestOfStorage(storage: string, columns = '*'): string {
    const { indexedBy, storageOfDetail, newestFirst } = this.#dialect;
    return `SELECT ${columns} FROM audit ${indexedBy('audit_storages')}
      WHERE ${storageOfDetail} = ${storage} AND ${OF_STORAGES} ORDER BY ${newestFirst('seq')} LIMIT 1`;
  }

  /** A query for the first storage after the one that an expression names. */
  storageAfter(storage: string): string {
    const { indexedBy, storageOfDetail } = this.#dialect;
    return `SELECT ${storageOfDetail} AS id FROM audit ${indexedBy('audit_storages')}
      WHERE ${storageOfDetail} > ${storage} AND ${OF_STORAGES} ORDER BY ${storageOfDetail} LIMIT 1`;
  }

  *head(): Sql<ChainHead> {
    return headOf(yield* row(`SELECT seq, hash FROM ${this.#dialect.auditTable} ORDER BY seq DESC LIMIT 1`));
  }

  /** Records by their numbers. */
  *at(seqs: readonly number[]): Sql<AuditRecord[]> {
    const found = yield* each(
      this.#at,
      seqs.map((seq) => [seq]),
    );
    return found.flat().map(auditRecordOf);
  }

  /** The first record in a range that does not continue the one before it. */
  *brokenLink(after: number, upTo: number): Sql<number | undefined> {
    const { auditTable } = this.#dialect;
    const found = yield* row(
      `SELECT a.seq FROM ${auditTable} AS a LEFT JOIN ${auditTable} AS b ON b.seq = a.seq - 1 AND b.hash = a.prev_hash
        WHERE a.seq > $1 AND a.seq <= $2 AND a.seq > 1 AND b.seq IS NULL ORDER BY a.seq LIMIT 1`,
      after,
      upTo,
    );
    return found?.['seq'] as number | undefined;
  }

  *latestRestore(): Sql<AuditRecord | undefined> {
    const { auditTable, indexedBy, newestFirst } = this.#dialect;
    const latest = yield* row(
      `SELECT * FROM ${auditTable} ${indexedBy('audit_restores')} WHERE action = '${CHAIN_RESTORED}' ORDER BY ${newestFirst('seq')} LIMIT 1`,
    );
    return latest && auditRecordOf(latest);
  }

  /** Whether a record without a key and with the same action and detail exists. */
  *has(draft: AuditDraft): Sql<boolean> {
    const sql = `SELECT 1 FROM audit WHERE ${this.#dialect.isSameRecord} LIMIT 1`;
    return (yield* row(sql, draft.action, detailText(draft))) !== undefined;
  }

  *lastChange(key: string): Sql<AuditRecord | undefined> {
    return (yield* this.lastChanges([key])).get(key);
  }

  /** The latest changes of keys, by name. */
  *lastChanges(keys: readonly string[]): Sql<Map<string, AuditRecord>> {
    return mapOf(yield* firstOfEach(this.#lastChanges, keys), auditRecordOf);
  }

  /** The place of the latest change of a key. */
  *placeOfLastChange(key: string): Sql<AuditReceipt | undefined> {
    const found = yield* row(this.#placeOfLastChange, key);
    return found && toReceipt(found);
  }

  /** The places of the latest changes of keys, by name. */
  *placesOfLastChanges(keys: readonly string[]): Sql<Map<string, AuditReceipt>> {
    return mapOf(yield* firstOfEach(this.#placesOfLastChanges, keys), toReceipt);
  }

  /** Number of the record of the latest rewrap of a key. */
  *lastRewrap(key: string): Sql<number | undefined> {
    const found = yield* row(this.latestChangeOf('$1', 'seq', `AND action = 'kek.rewrap'`), key);
    return found?.['seq'] as number | undefined;
  }

  /** The records of the KEKs. */
  *kekRecords(): Sql<AuditRecord[]> {
    return (yield* rows(`SELECT * FROM ${this.#ofKeks} ORDER BY seq`)).map(auditRecordOf);
  }

  /** Number of the latest of {@link kekRecords}. */
  *latestKekRecord(): Sql<number | undefined> {
    const latest = yield* row(`SELECT seq FROM ${this.#ofKeks} ORDER BY seq DESC LIMIT 1`);
    return latest?.['seq'] as number | undefined;
  }

  /** Id of the current KEK, from the latest record that made one current. */
  *currentKek(): Sql<string | undefined> {
    const latest = yield* row(
      `SELECT detail FROM ${this.#ofKeks} AND action IN ('vault.initialised', 'kek.rotate')
        ORDER BY seq DESC LIMIT 1`,
    );
    const kekId = latest === undefined ? undefined : parseDetail(String(latest['detail']))['kek_id'];
    return typeof kekId === 'string' ? kekId : undefined;
  }

  get #ofKeks(): string {
    return `audit ${this.#dialect.indexedBy('audit_keks')} WHERE ${OF_KEKS}`;
  }

  /** Records after `after`, by `seq`; from the first without it. Not authenticated. */
  *after(after: number | undefined, limit: number): Sql<AuditRecord[]> {
    const sql = 'SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2';
    return (yield* rows(sql, after ?? BEFORE_ALL, limit)).map(auditRecordOf);
  }

  *list(query: AuditQuery): Sql<FilteredPage<AuditRecord, number>> {
    const { unindexed } = this.#dialect;
    const until = yield* this.#scannedUntil(query);
    const values: SqlValue[] = [];
    const conditions = [
      ...(query.bulk === false ? [BUT_BULK] : []),
      ...(query.uses === false ? [BUT_USES] : []),
    ];
    const require = (sql: string, value: string | number | undefined) => {
      if (value !== undefined) conditions.push(`${sql} $${values.push(value)}`);
    };
    require('seq >', query.after ?? BEFORE_ALL);
    require('seq <=', until);
    require('severity =', query.severity);
    require('key =', query.key);
    require('actor =', query.actor);
    // With the index of times, all matches would be read and sorted.
    require(`${unindexed('time')} >=`, query.from);
    require(`${unindexed('time')} <`, query.to);
    const limit = `$${values.push(query.limit + 1)}`;
    const found = yield* rows(
      `SELECT * FROM audit WHERE ${conditions.join(' AND ')} ORDER BY seq LIMIT ${limit}`,
      ...values,
    );
    const page = pageOf(found, query.limit, auditRecordOf);
    return page.more || until === undefined ? page : { ...page, more: true, next: until };
  }

  /** Where a filtered page stops reading; undefined when it may read to the end. */
  *#scannedUntil({ after, key, actor, severity, from, to }: AuditQuery): Sql<number | undefined> {
    if ([actor, severity, from, to].every((filter) => filter === undefined)) return undefined;
    // An index finds the records of one key or of one actor.
    const [of, value] = key !== undefined ? ['key', key] : actor !== undefined ? ['actor', actor] : [];
    const last = yield* row(
      `SELECT seq FROM audit WHERE seq > $1 ${of === undefined ? '' : `AND ${of} = $3`} ORDER BY seq LIMIT 1 OFFSET $2`,
      after ?? BEFORE_ALL,
      PAGE_RECORDS_MAX - 1,
      ...(value === undefined ? [] : [value]),
    );
    return last?.['seq'] as number | undefined;
  }

  /** The latest records of storages, by storage id. */
  *storageRecords(ids: readonly string[]): Sql<Map<string, AuditRecord>> {
    return mapOf(yield* firstOfEach(this.#storageRecords, ids), auditRecordOf);
  }

  /** Numbers of {@link storageRecords}. */
  *storagePlaces(ids: readonly string[]): Sql<Map<string, number>> {
    return mapOf(yield* firstOfEach(this.#storagePlaces, ids), (found) => found['seq'] as number);
  }

  /** Ids of the storages that have records. One look-up for each, however many records it has. */
  *storages({ after = '', limit }: PageQuery<string>): Sql<Page<string>> {
    const items: string[] = [];
    for (let last = after; ; ) {
      const found = yield* row(this.storageAfter('$1'), last);
      if (found === undefined) return { items, more: false };
      if (items.length === limit) return { items, more: true };
      last = String(found['id']);
      items.push(last);
    }
  }

  /** @param places the present {@link storagePlaces}. */
  *isStorageAsRead(
    { id, seq, unreleasedSince }: StorageStamp,
    places: ReadonlyMap<string, number>,
  ): Sql<boolean> {
    if (places.get(id) !== seq) return false;
    if (unreleasedSince === undefined) return true;
    const since = this.#dialect.newerThan('seq', '$2');
    const sql = `SELECT 1 FROM ${this.#exportsToStorage} AND outcome = 'allowed' AND ${since} LIMIT 1`;
    return (yield* row(sql, id, unreleasedSince)) === undefined;
  }

  /** Whether a key was released after that record. */
  *isReleasedSince(key: string, seq: number): Sql<boolean> {
    const sql = `SELECT 1 FROM audit WHERE key = $1 AND seq > $2 AND ${IS_RELEASE} LIMIT 1`;
    return (yield* row(sql, key, seq)) !== undefined;
  }

  exportsOf(key: string, from: string, page: ReleasePageQuery): Sql<BackwardPage<AuditRecord>> {
    return allowed(OF_KEY_BACKWARDS, key, from, page);
  }

  innerUsesOf(key: string, from: string, page: ReleasePageQuery): Sql<BackwardPage<AuditRecord>> {
    return allowed(OF_KEY_BACKWARDS, key, from, page, INNER_USE_ACTIONS);
  }

  /** The newest records of a key. */
  *newestOf(key: string, limit: number): Sql<AuditRecord[]> {
    const sql = 'SELECT * FROM audit WHERE key = $1 ORDER BY seq DESC LIMIT $2';
    return (yield* rows(sql, key, limit)).map(auditRecordOf);
  }

  exportsToStorage(storage: string, from: string, page: ReleasePageQuery): Sql<BackwardPage<AuditRecord>> {
    const { olderThan, newestFirst } = this.#dialect;
    return allowed(
      `SELECT * FROM ${this.#exportsToStorage} AND ${olderThan('seq', '$2')} ORDER BY ${newestFirst('seq')} LIMIT $3`,
      storage,
      from,
      page,
    );
  }

  get #exportsToStorage(): string {
    const { indexedBy, storageOfDetail, contains } = this.#dialect;
    return `audit ${indexedBy('audit_storage_exports')}
      WHERE ${storageOfDetail} = $1 AND action = 'key.export' AND ${contains('detail', `'"storage":'`)}`;
  }
}

const OF_KEY_BACKWARDS = 'SELECT * FROM audit WHERE key = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3';

/** The allowed exports, or other actions, among records in descending order. */
function* allowed(
  sql: string,
  of: string,
  from: string,
  page: ReleasePageQuery,
  actions: readonly string[] = ['key.export'],
): Sql<BackwardPage<AuditRecord>> {
  const items: AuditRecord[] = [];
  let before = page.before ?? Number.MAX_SAFE_INTEGER;
  const limit = Math.min(BATCH_MAX, Math.max(BATCH_MIN, 2 * page.limit));
  for (let scanned = 0; scanned < PAGE_RECORDS_MAX; ) {
    const found = yield* rows(sql, of, before, limit);
    for (const record of found) {
      if ((record['time'] as string) < from) return { items };
      before = record['seq'] as number;
      scanned++;
      if (actions.includes(record['action'] as string) && record['outcome'] === 'allowed')
        items.push(auditRecordOf(record));
      if (items.length === page.limit) return { items, next: before };
    }
    if (found.length < limit) return { items };
  }
  return { items, next: before };
}

function toReceipt(found: Row): AuditReceipt {
  return { seq: found['seq'] as number, hash: found['hash'] as string };
}

function mapOf<T>(found: ReadonlyMap<string, Row>, to: (row: Row) => T): Map<string, T> {
  return new Map([...found].map(([id, one]) => [id, to(one)]));
}

function listOf(actions: readonly string[]): string {
  return actions.map((action) => `'${action}'`).join(', ');
}
