import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import {
  type AuditDraft,
  type ChainFault,
  type ChainHead,
  faultOf,
  GENESIS,
  nextRecord,
} from '../../audit/chain.ts';
import { STORAGE_ACTIONS } from '../../audit/storage-record.ts';
import { KEK_ACTIONS } from '../../vault/kek-state.ts';
import {
  type AuditQuery,
  type BackwardPage,
  BULK_ACTIONS,
  type FilteredPage,
  type StorageMark,
  USE_ACTIONS,
} from '../port.ts';
import { auditRecordOf, detailText, parseDetail, type Row } from '../row-records.ts';
import type { Connection } from './connection.ts';
import { takePage } from './page.ts';

/** Word for word the conditions of the indexes: only so SQLite uses them. */
const BUT_BULK = `action NOT IN (${listOf(BULK_ACTIONS)})`;
const BUT_USES = `action NOT IN (${listOf(USE_ACTIONS)})`;
const OF_KEKS = `action IN (${listOf(KEK_ACTIONS)})`;
const LATEST_CHANGE = `audit INDEXED BY audit_key_changes
  WHERE key = ? AND instr(detail, '"revision":') > 0 ORDER BY seq DESC LIMIT 1`;
const OF_STORAGE = `audit INDEXED BY audit_storages
  WHERE detail ->> '$.storage' = ? AND action IN (${listOf(STORAGE_ACTIONS)}) ORDER BY seq DESC LIMIT 1`;
const EXPORTS_TO_STORAGE = `audit INDEXED BY audit_storage_exports
  WHERE detail ->> '$.storage' = ? AND action = 'key.export' AND instr(detail, '"storage":') > 0`;
/** Records that one page looks at: refusals may be many, and all else waits for this thread meanwhile. */
const LOOKED_AT_MAX = 10_000;

/** Where a list begins: who can write to the database can add records in front of the first. */
const BEFORE_ALL = Number.NEGATIVE_INFINITY;

/** The audit chain. Anyone who appends calls from inside a write transaction. */
export class AuditTable {
  readonly #connection: Connection;
  readonly #onInsert: ((action: string) => void) | undefined;
  #chainKey: KeyObject | undefined;

  /** @param onInsert told of the action of each record that is written. */
  constructor(connection: Connection, onInsert?: (action: string) => void) {
    this.#connection = connection;
    this.#onInsert = onInsert;
  }

  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  get chainKey(): KeyObject {
    assert(this.#chainKey !== undefined, 'the audit chain is locked');
    return this.#chainKey;
  }

  /** @param head of the chain, when this transaction has just appended it. */
  append(draft: AuditDraft, head: ChainHead = this.head()): AuditReceipt {
    const record = nextRecord(this.chainKey, head, draft);
    this.insert(record);
    return { seq: record.seq, hash: record.hash };
  }

  /** Takes in a record as it is, behind all that are there. */
  insert(record: AuditRecord): void {
    this.#connection.run(
      `INSERT INTO audit (seq, time, severity, action, outcome, actor, jti, key, version, source, request_id, code,
         detail, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
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
    );
    this.#onInsert?.(record.action);
  }

  has(draft: AuditDraft): boolean {
    const row = this.#connection.row(
      'SELECT 1 FROM audit WHERE action = ? AND detail IS ? LIMIT 1',
      draft.action,
      detailText(draft),
    );
    return row !== undefined;
  }

  head(): ChainHead {
    const row = this.#connection.row('SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1');
    return row === undefined ? GENESIS : { seq: row['seq'] as number, hash: row['hash'] as string };
  }

  /** The latest change of a key: a record whose detail has a revision. In JSON no string can pass for that member. */
  lastChange(key: string): AuditRecord | undefined {
    const row = this.#connection.row(`SELECT * FROM ${LATEST_CHANGE}`, key);
    return row && auditRecordOf(row);
  }

  placeOfLastChange(key: string): AuditReceipt | undefined {
    const row = this.#connection.row(`SELECT seq, hash FROM ${LATEST_CHANGE}`, key);
    return row && { seq: row['seq'] as number, hash: row['hash'] as string };
  }

  /** The records that say what the KEKs are. */
  kekRecords(): AuditRecord[] {
    const rows = this.#connection.rows(
      `SELECT * FROM audit INDEXED BY audit_keks WHERE ${OF_KEKS} ORDER BY seq`,
    );
    return [...rows].map(auditRecordOf);
  }

  /** Number of the latest of {@link kekRecords}. */
  latestKekRecord(): number | undefined {
    const row = this.#connection.row(
      `SELECT seq FROM audit INDEXED BY audit_keks WHERE ${OF_KEKS} ORDER BY seq DESC LIMIT 1`,
    );
    return row?.['seq'] as number | undefined;
  }

  /** Id of the KEK that the latest record which made one so calls the current one. */
  currentKek(): string | undefined {
    const row = this.#connection.row(
      `SELECT detail FROM audit INDEXED BY audit_keks
        WHERE ${OF_KEKS} AND action IN ('vault.initialised', 'kek.added', 'kek.rotate') ORDER BY seq DESC LIMIT 1`,
    );
    const kekId = row === undefined ? undefined : parseDetail(String(row['detail']))['kek_id'];
    return typeof kekId === 'string' ? kekId : undefined;
  }

  /** Number of the record that tells of the latest new wrapping of a key. */
  lastRewrap(key: string): number | undefined {
    const row = this.#connection.row(
      `SELECT seq FROM audit INDEXED BY audit_key_changes
        WHERE key = ? AND instr(detail, '"revision":') > 0 AND action = 'kek.rewrap' ORDER BY seq DESC LIMIT 1`,
      key,
    );
    return row?.['seq'] as number | undefined;
  }

  /** Versions of a key that were released, each with the record of it, newest first. */
  *releases(key: string): Generator<{ readonly seq: number; readonly version: number | undefined }, void> {
    const rows = this.#connection.rows(
      'SELECT seq, action, outcome, version FROM audit WHERE key = ? ORDER BY seq DESC',
      key,
    );
    for (const row of rows) {
      const isRelease = row['action'] === 'key.export' && row['outcome'] === 'allowed';
      yield { seq: row['seq'] as number, version: isRelease ? (row['version'] as number) : undefined };
    }
  }

  /** Walks the whole chain. @param onRecord told of each record that is sound. */
  verify(onRecord: (record: AuditRecord) => void): ChainFault | undefined {
    const { chainKey } = this;
    let head = GENESIS;
    for (const record of this.all()) {
      const fault = faultOf(chainKey, head, record);
      if (fault !== undefined) return fault;
      onRecord(record);
      head = { seq: record.seq, hash: record.hash };
    }
    return undefined;
  }

  /** All records as they are stored, by `seq`. */
  *all(): Generator<AuditRecord, void, undefined> {
    for (const row of this.#connection.rows('SELECT * FROM audit ORDER BY seq')) yield auditRecordOf(row);
  }

  list(query: AuditQuery): FilteredPage<AuditRecord, number> {
    const { after = BEFORE_ALL, limit } = query;
    const until = this.#lookedAtUntil(query);
    const conditions: [sql: string, value: string | number | undefined][] = [
      ['seq > ?', after],
      ['seq <= ?', until],
      ['key = ?', query.key],
      ['actor = ?', query.actor],
      // Without the sign SQLite may go by this index, through all that matches, and sort it.
      ['+time >= ?', query.from],
      ['+time < ?', query.to],
      ['severity = ?', query.severity],
    ];
    const left = `${query.bulk === false ? `${BUT_BULK} AND ` : ''}${query.uses === false ? `${BUT_USES} AND ` : ''}`;
    const given = conditions.flatMap(([sql, value]) => (value === undefined ? [] : [{ sql, value }]));
    const rows = this.#connection.rows(
      `SELECT * FROM audit WHERE ${left}${given.map(({ sql }) => sql).join(' AND ')} ORDER BY seq LIMIT ?`,
      ...given.map(({ value }) => value),
      limit + 1,
    );
    const page = takePage(rows, limit, auditRecordOf);
    return page.more || until === undefined ? page : { ...page, more: true, next: until };
  }

  /** Where a page that is filtered ends its look; undefined when it may look to the end. */
  #lookedAtUntil({ after = BEFORE_ALL, key, actor, severity, from, to }: AuditQuery): number | undefined {
    if ([actor, severity, from, to].every((filter) => filter === undefined)) return undefined;
    // The records of one key, or of one actor, are found by an index.
    const [of, value] = key !== undefined ? ['key', key] : actor !== undefined ? ['actor', actor] : [];
    const row = this.#connection.row(
      `SELECT seq FROM audit WHERE ${of === undefined ? '' : `${of} = ? AND `}seq > ? ORDER BY seq LIMIT 1 OFFSET ?`,
      ...(value === undefined ? [] : [value]),
      after,
      LOOKED_AT_MAX - 1,
    );
    return row?.['seq'] as number | undefined;
  }

  /** The latest record that says how a storage stands. */
  storageRecord(id: string): AuditRecord | undefined {
    const row = this.#connection.row(`SELECT * FROM ${OF_STORAGE}`, id);
    return row && auditRecordOf(row);
  }

  isStorageAsRead({ id, seq, quietSince }: StorageMark): boolean {
    if (this.#connection.row(`SELECT seq FROM ${OF_STORAGE}`, id)?.['seq'] !== seq) return false;
    if (quietSince === undefined) return true;
    const released = this.#connection.row(
      `SELECT 1 FROM ${EXPORTS_TO_STORAGE} AND outcome = 'allowed' AND seq > ? LIMIT 1`,
      id,
      quietSince,
    );
    return released === undefined;
  }

  /** Whether a key was released behind that record. */
  isReleasedSince(key: string, seq: number): boolean {
    const row = this.#connection.row(
      `SELECT 1 FROM audit WHERE key = ? AND seq > ? AND action = 'key.export' AND outcome = 'allowed' LIMIT 1`,
      key,
      seq,
    );
    return row !== undefined;
  }

  exportsToStorage(
    id: string,
    from: string,
    page: { before?: number | undefined; limit: number },
  ): BackwardPage {
    const before = page.before ?? Number.MAX_SAFE_INTEGER;
    const rows = this.#connection.rows(
      `SELECT * FROM ${EXPORTS_TO_STORAGE} AND seq < ? ORDER BY seq DESC`,
      id,
      before,
    );
    return releasesIn(rows, from, page.limit);
  }

  exportsOf(key: string, from: string, page: { before?: number | undefined; limit: number }): BackwardPage {
    const rows = this.#connection.rows(
      'SELECT * FROM audit WHERE key = ? AND seq < ? ORDER BY seq DESC',
      key,
      page.before ?? Number.MAX_SAFE_INTEGER,
    );
    return releasesIn(rows, from, page.limit);
  }
}

/** The allowed exports among records that come newest first. */
function releasesIn(rows: Iterable<Row>, from: string, limit: number): BackwardPage {
  const items: AuditRecord[] = [];
  let looked = 0;
  for (const row of rows) {
    if ((row['time'] as string) < from) break;
    if (row['action'] === 'key.export' && row['outcome'] === 'allowed') items.push(auditRecordOf(row));
    if (items.length === limit || ++looked === LOOKED_AT_MAX) return { items, next: row['seq'] as number };
  }
  return { items };
}

function listOf(actions: readonly string[]): string {
  return actions.map((action) => `'${action}'`).join(', ');
}
