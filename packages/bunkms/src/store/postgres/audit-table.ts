import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, GENESIS } from '../../records/chain.ts';
import { KEK_ACTIONS } from '../../records/kek-state.ts';
import { STORAGE_ACTIONS } from '../../records/storage-record.ts';
import { type AuditQuery, type BackwardPage, BULK_ACTIONS, type FilteredPage, USE_ACTIONS } from '../port.ts';
import { auditRecordIn, auditRecordOf, detailText, parseDetail, type Row } from '../row-records.ts';
import { pageOf } from './page.ts';
import type { Session } from './session.ts';

/** As the conditions of the indexes: only so PostgreSQL uses them. */
const BUT_BULK = `action NOT IN (${listOf(BULK_ACTIONS)})`;
const BUT_USES = `action NOT IN (${listOf(USE_ACTIONS)})`;
const OF_KEKS = `action IN (${listOf(KEK_ACTIONS)})`;
/** In JSON no string can pass for that member. */
const IS_CHANGE = `strpos(detail, '"revision":') > 0`;

/**
 * A query for the latest change of a key, by the expression that names it. Ordered as an index that has nothing but changes: for the order of `seq`
 * PostgreSQL would rather walk the whole chain from its end where there are few keys.
 */
export function latestChangeOf(key: string, columns = '*'): string {
  return `SELECT ${columns} FROM audit WHERE key = ${key} AND ${IS_CHANGE} ORDER BY -seq LIMIT 1`;
}

const COLUMNS = [
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
const NAMES = COLUMNS.map(([name]) => name).join(', ');
const INSERT = `INSERT INTO audit (${NAMES}, write_id)
  SELECT *, $${COLUMNS.length + 1}::uuid FROM unnest(${COLUMNS.map(([, type], index) => `$${index + 1}::${type}[]`).join(', ')})`;

/** The columns of a record, named apart from those of what it is joined with. */
export const PREFIXED = COLUMNS.map(([name]) => `a.${name} AS a_${name}`).join(', ');

/** As the expressions and conditions of the indexes. */
const STORAGE = `(detail::jsonb ->> 'storage')`;
const OF_STORAGES = `action IN (${listOf(STORAGE_ACTIONS)})`;
const EXPORTS_TO_STORAGES = `action = 'key.export' AND strpos(detail, '"storage":') > 0`;

/** A query for the latest record of a storage, by the expression that names it; ordered as in {@link latestChangeOf}. */
export function latestOfStorage(storage: string, columns = '*'): string {
  return `SELECT ${columns} FROM audit WHERE ${STORAGE} = ${storage} AND ${OF_STORAGES} ORDER BY -seq LIMIT 1`;
}

/** Where a list begins, the least `bigint`: who can write to the database can add records in front of the first. */
const BEFORE_ALL = '-9223372036854775808';

/** Records that one page looks at, and how many of them at once. */
const LOOKED_AT_MAX = 10_000;
const LOOK = 1_000;

/** Takes in records as they are, behind all that are there: two nodes that took the same place would violate the primary key. */
export async function insertRecords(
  session: Session,
  records: readonly AuditRecord[],
  writeId: string,
): Promise<void> {
  const column = <T>(of: (record: AuditRecord) => T) => records.map(of);
  await session.run(
    INSERT,
    column(({ seq }) => seq),
    column(({ time }) => time),
    column(({ severity }) => severity),
    column(({ action }) => action),
    column(({ outcome }) => outcome),
    column(({ actor }) => actor ?? null),
    column(({ jti }) => jti ?? null),
    column(({ key }) => key ?? null),
    column(({ version }) => version ?? null),
    column(({ source }) => source ?? null),
    column(({ request_id: requestId }) => requestId ?? null),
    column(({ code }) => code ?? null),
    column(detailText),
    column(({ prev_hash: previous }) => previous),
    column(({ hash }) => hash),
    writeId,
  );
}

export async function head(session: Session): Promise<ChainHead> {
  return headOf(await session.row('SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1'));
}

export function headOf(row: Row | undefined): ChainHead {
  return row === undefined ? GENESIS : placeOf(row);
}

/** Whether there is a record of no key with the same action and detail. */
export async function hasRecord(session: Session, draft: AuditDraft): Promise<boolean> {
  const row = await session.row(
    `SELECT 1 FROM audit WHERE action = $1 AND key IS NULL AND detail IS NOT NULL
       AND hashtextextended(detail, 0) = hashtextextended($2, 0) AND detail = $2 LIMIT 1`,
    draft.action,
    detailText(draft),
  );
  return row !== undefined;
}

/** The latest change of a key: a record whose detail has a revision. */
export async function lastChange(session: Session, key: string): Promise<AuditRecord | undefined> {
  const row = await session.row(latestChangeOf('$1'), key);
  return row && auditRecordOf(row);
}

/** {@link lastChange} of many keys, by name. */
export async function lastChanges(
  session: Session,
  names: readonly string[],
): Promise<Map<string, AuditRecord>> {
  const rows = await session.rows(
    `SELECT a.* FROM unnest($1::text[]) AS n (name) CROSS JOIN LATERAL
       (${latestChangeOf('n.name')}) AS a`,
    names,
  );
  return new Map(rows.map((row) => [row['key'] as string, auditRecordOf(row)]));
}

/** Where the latest change of keys is, by name. */
export async function placesOfLastChanges(
  session: Session,
  names: readonly string[],
): Promise<Map<string, AuditReceipt>> {
  const rows = await session.rows(
    `SELECT n.name, a.seq, a.hash FROM unnest($1::text[]) AS n (name) CROSS JOIN LATERAL
       (${latestChangeOf('n.name', 'seq, hash')}) AS a`,
    names,
  );
  return new Map(rows.map((row) => [row['name'] as string, placeOf(row)]));
}

/** The latest records that say how storages stand, by the ids of the storages. */
export async function storageRecords(
  session: Session,
  ids: readonly string[],
): Promise<Map<string, AuditRecord>> {
  const rows = await session.rows(
    `SELECT s.id AS storage_id, a.* FROM unnest($1::text[]) AS s (id) CROSS JOIN LATERAL (${latestOfStorage('s.id')}) AS a`,
    ids,
  );
  return new Map(rows.map((row) => [row['storage_id'] as string, auditRecordOf(row)]));
}

/** Numbers of {@link storageRecords}. */
export async function storagePlaces(session: Session, ids: readonly string[]): Promise<Map<string, number>> {
  if (ids.length === 0) return new Map();
  const rows = await session.rows(
    `SELECT s.id, a.seq FROM unnest($1::text[]) AS s (id) CROSS JOIN LATERAL (${latestOfStorage('s.id', 'seq')}) AS a`,
    ids,
  );
  return new Map(rows.map((row) => [row['id'] as string, row['seq'] as number]));
}

/** Whether a key was released to a storage behind that record. */
export async function isReleasedToSince(session: Session, storage: string, seq: number): Promise<boolean> {
  const row = await session.row(
    `SELECT 1 FROM audit WHERE ${STORAGE} = $1 AND ${EXPORTS_TO_STORAGES} AND outcome = 'allowed' AND -seq < -$2::bigint LIMIT 1`,
    storage,
    seq,
  );
  return row !== undefined;
}

/** Whether a key was released behind that record. */
export async function isReleasedSince(session: Session, key: string, seq: number): Promise<boolean> {
  const row = await session.row(
    `SELECT 1 FROM audit WHERE key = $1 AND seq > $2 AND action = 'key.export' AND outcome = 'allowed' LIMIT 1`,
    key,
    seq,
  );
  return row !== undefined;
}

/** The records that say what the KEKs are. */
export async function kekRecords(session: Session): Promise<AuditRecord[]> {
  return (await session.rows(`SELECT * FROM audit WHERE ${OF_KEKS} ORDER BY seq`)).map(auditRecordOf);
}

/** Number of the latest of {@link kekRecords}. */
export async function latestKekRecord(session: Session): Promise<number | undefined> {
  const row = await session.row(`SELECT seq FROM audit WHERE ${OF_KEKS} ORDER BY seq DESC LIMIT 1`);
  return row?.['seq'] as number | undefined;
}

/** Id of the KEK that the latest record which made one so calls the current one. */
export async function currentKek(session: Session): Promise<string | undefined> {
  const row = await session.row(
    `SELECT detail FROM audit
      WHERE ${OF_KEKS} AND action IN ('vault.initialised', 'kek.added', 'kek.rotate') ORDER BY seq DESC LIMIT 1`,
  );
  const kekId = row === undefined ? undefined : parseDetail(String(row['detail']))['kek_id'];
  return typeof kekId === 'string' ? kekId : undefined;
}

/** Records behind `after`, as they are stored, by `seq`. */
export async function recordsAfter(session: Session, after: number, limit: number): Promise<AuditRecord[]> {
  const rows = await session.rows('SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2', after, limit);
  return rows.map(auditRecordOf);
}

export async function listRecords(
  session: Session,
  query: AuditQuery,
): Promise<FilteredPage<AuditRecord, number>> {
  const until = await lookedAtUntil(session, query);
  const values: unknown[] = [];
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
  require('time >=', query.from);
  require('time <', query.to);
  const limit = `$${values.push(query.limit + 1)}`;
  const rows = await session.rows(
    `SELECT * FROM audit WHERE ${conditions.join(' AND ')} ORDER BY seq LIMIT ${limit}`,
    ...values,
  );
  const page = pageOf(rows, query.limit, auditRecordOf);
  return page.more || until === undefined ? page : { ...page, more: true, next: until };
}

/** Where a page that is filtered ends its look; undefined when it may look to the end. */
async function lookedAtUntil(
  session: Session,
  { after, key, actor, severity, from, to }: AuditQuery,
): Promise<number | undefined> {
  if ([actor, severity, from, to].every((filter) => filter === undefined)) return undefined;
  // The records of one key, or of one actor, are found by an index.
  const [of, value] = key !== undefined ? ['key', key] : actor !== undefined ? ['actor', actor] : [];
  const row = await session.row(
    `SELECT seq FROM audit WHERE seq > $1 ${of === undefined ? '' : `AND ${of} = $3`} ORDER BY seq LIMIT 1 OFFSET $2`,
    after ?? BEFORE_ALL,
    LOOKED_AT_MAX - 1,
    ...(value === undefined ? [] : [value]),
  );
  return row?.['seq'] as number | undefined;
}

interface ReleasePage {
  readonly before?: number | undefined;
  readonly limit: number;
}

export function exportsOf(
  session: Session,
  key: string,
  from: string,
  page: ReleasePage,
): Promise<BackwardPage> {
  return releases(session, 'key = $1 AND seq < $2 ORDER BY seq DESC', key, from, page);
}

export function exportsToStorage(
  session: Session,
  storage: string,
  from: string,
  page: ReleasePage,
): Promise<BackwardPage> {
  const which = `${STORAGE} = $1 AND ${EXPORTS_TO_STORAGES} AND -seq > -$2::bigint ORDER BY -seq`;
  return releases(session, which, storage, from, page);
}

/** The allowed exports among records that come newest first. */
async function releases(
  session: Session,
  which: string,
  of: string,
  from: string,
  page: ReleasePage,
): Promise<BackwardPage> {
  const items: AuditRecord[] = [];
  let before = page.before ?? Number.MAX_SAFE_INTEGER;
  for (let looked = 0; looked < LOOKED_AT_MAX; ) {
    const rows = await session.rows(`SELECT * FROM audit WHERE ${which} LIMIT $3`, of, before, LOOK);
    for (const row of rows) {
      if ((row['time'] as string) < from) return { items };
      before = row['seq'] as number;
      looked++;
      if (row['action'] === 'key.export' && row['outcome'] === 'allowed') items.push(auditRecordOf(row));
      if (items.length === page.limit) return { items, next: before };
    }
    if (rows.length < LOOK) return { items };
  }
  return { items, next: before };
}

/** The record among what it was joined with, by {@link PREFIXED}; undefined when there is none. */
export function joinedRecordOf(row: Row): AuditRecord | undefined {
  return row['a_seq'] === null ? undefined : auditRecordIn(row, 'a_');
}

function placeOf(row: Row): AuditReceipt {
  return { seq: row['seq'] as number, hash: row['hash'] as string };
}

function listOf(actions: readonly string[]): string {
  return actions.map((action) => `'${action}'`).join(', ');
}
