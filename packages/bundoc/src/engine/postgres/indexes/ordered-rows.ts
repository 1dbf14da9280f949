import { COMMIT_BYTES_MAX, type Position } from '../../port/port.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { PAGE_BYTES } from '../order/page.ts';
import { KEYS, small } from '../rows/rows.ts';
import type { StoredPage } from './run-rows.ts';

/** Changed documents that one statement reads, and the bytes of their keys. It reads at least one. */
const CHANGES_AT_ONCE = 2_000;
const CHANGES_BYTES_MAX = 4_194_304;

/** Kinds of rows. */
const RUNS = 0;
const CHANGED = 1;
const DOCUMENT = 2;
const PAGE = 3;

/**
 * Everything that an answer by an index needs, in one snapshot: its runs unless they are known, the documents
 * that changed since a position, the documents at some places, and some pages of runs. No row means that the
 * index does not exist or is not whole. Documents beyond the limit of bytes come without them.
 */
const READ: Statement = {
  name: 'bundoc-read-ordered-1',
  text: `
SELECT h.seq, i.runs_version, i.runs_key_version, i.as_of, (SELECT documents FROM bundoc.collections WHERE project = $1 AND token = $3), f.*
FROM bundoc.heads AS h JOIN bundoc.indexes AS i ON i.project = h.project AND i.id = $2
LEFT JOIN LATERAL (
  SELECT ${RUNS} AS kind, NULL::bytea AS name, NULL::bytea AS collection, NULL::bigint AS seq, NULL::bigint AS created_seq,
    NULL::bigint AS deleted_ms, NULL::integer AS key_version, NULL::bytea AS rev, NULL::bytea AS state, NULL::integer AS size,
    i.runs AS sealed, NULL::bigint AS changes
  WHERE i.runs_version <> $4
  UNION ALL
  SELECT ${CHANGED}, name, NULL, d.seq, created_seq, deleted_ms, key_version, NULL, NULL, NULL, keys, changes FROM (
    SELECT *, count(*) OVER () AS changes, row_number() OVER w AS place, sum(octet_length(keys)) OVER w AS running FROM (
      SELECT name, documents.seq, created_seq, deleted_ms, key_version,
        ${KEYS} AS keys
      FROM bundoc.documents
      WHERE project = $1 AND documents.seq > 0 AND documents.seq > (
        CASE WHEN i.runs_version = $4 OR i.as_of >= $5 THEN greatest(i.as_of, $6) ELSE i.as_of END
      ) AND collection = $3 ORDER BY documents.seq LIMIT ${CHANGES_AT_ONCE}
    ) AS d WINDOW w AS (ORDER BY d.seq)
  ) AS d WHERE place = 1 OR coalesce(running, 0) <= ${CHANGES_BYTES_MAX}
  UNION ALL
  SELECT ${DOCUMENT}, name, ${small('collection')}, d.seq, created_seq, deleted_ms, key_version, ${small('rev')}, ${small('state')},
    coalesce(octet_length(sealed), 0), CASE WHEN octet_length(sealed) <= ${COMMIT_BYTES_MAX} AND (cardinality($7::bigint[]) = 1 OR octet_length(sealed) <= $8::bigint AND running <= $8) THEN sealed END, NULL
  FROM (
    SELECT d.*, place, sum(octet_length(sealed)) FILTER (WHERE octet_length(sealed) <= $8::bigint) OVER (ORDER BY place) AS running
    FROM unnest($7::bigint[]) WITH ORDINALITY AS w(created, place) CROSS JOIN LATERAL (
      SELECT * FROM bundoc.documents
      WHERE project = $1 AND collection = $3 AND created_seq = w.created AND deleted_ms = 0 LIMIT 1
    ) AS d
  ) AS d
  UNION ALL
  SELECT ${PAGE}, run, NULL, p.id, NULL, NULL, NULL, NULL, NULL, NULL, CASE WHEN octet_length(sealed) = ${PAGE_BYTES} THEN sealed END, NULL
  FROM unnest($9::bigint[]) AS w(page) CROSS JOIN LATERAL (
    SELECT * FROM bundoc.index_pages WHERE project = $1 AND id = w.page LIMIT 1
  ) AS p
) AS f ON true
WHERE h.project = $1 AND i.runs_indexed IS NULL AND NOT i.dropped`,
};

/** What a node knows of an index already. */
export interface KnownOrder {
  readonly version: number;
  readonly asOf: Position;
  /** Changes up to here are known. */
  readonly seenTo: Position;
}

export const NOTHING_KNOWN: KnownOrder = { version: -1, asOf: 0, seenTo: 0 };

/** What an answer needs beside the index's changes. */
export interface WantedRows {
  /** Places of documents. */
  readonly documents: readonly Position[];
  /** Sealed bytes of all documents; the others come without theirs. A single one has them in any case. */
  readonly bytesMax: number;
  /** Ids of pages. */
  readonly pages: readonly number[];
}

export interface ChangedRow {
  readonly name: Buffer;
  readonly seq: Position;
  readonly createdSeq: Position;
  readonly isDeleted: boolean;
  readonly keyVersion: number;
  readonly keys: Buffer | null;
}

/** One state of an index, and rows of the same state. */
export interface OrderedRows {
  /** The last commit of the project. */
  readonly seq: Position;
  readonly version: number;
  readonly keyVersion: number | null;
  readonly asOf: Position;
  /** Changes up to here are not among those read: they are known, or in the runs. */
  readonly changedAfter: Position;
  /** Number of documents in the collection. */
  readonly total: number;
  /** Undefined when they are the known ones. */
  readonly runs: Buffer | null | undefined;
  readonly changed: readonly ChangedRow[];
  /** Whether all changes up to `seq` are among them. */
  readonly isComplete: boolean;
  /** As `readStateRow` takes them, with the sealed bytes, which are null beyond the limit. */
  readonly documents: readonly Row[];
  readonly pages: readonly StoredPage[];
}

/** Undefined for an index that does not exist, or is not whole. */
export async function readOrdered(
  queryable: Queryable,
  index: { readonly project: string; readonly id: number; readonly collection: Buffer },
  { version, asOf, seenTo }: KnownOrder,
  { documents, bytesMax, pages }: WantedRows,
): Promise<OrderedRows | undefined> {
  const { project, id, collection } = index;
  const rows = await queryable.query(READ, [
    ...[project, id, collection, version, asOf, seenTo],
    ...[documents, bytesMax, pages],
  ]);
  const [first] = rows;
  if (first === undefined) return undefined;
  const found = Map.groupBy(rows, (row) => row[5] as number | null);
  const changed = (found.get(CHANGED) ?? []).map(changedOf);
  const changes = Number(found.get(CHANGED)?.[0]?.[16] ?? 0);
  const runs = found.get(RUNS)?.[0];
  const [foundVersion, foundAsOf] = [first[1] as number, first[3] as number];
  const isFollowed = foundVersion === version || foundAsOf >= asOf;
  return {
    seq: first[0] as number,
    version: foundVersion,
    keyVersion: first[2] as number | null,
    asOf: foundAsOf,
    // As the statement does.
    changedAfter: isFollowed ? Math.max(foundAsOf, seenTo) : foundAsOf,
    total: (first[4] as number | null) ?? 0,
    runs: runs && (runs[15] as Buffer | null),
    changed,
    isComplete: changed.length === changes && changes < CHANGES_AT_ONCE,
    documents: (found.get(DOCUMENT) ?? []).map((row) => row.slice(6, 16)),
    pages: (found.get(PAGE) ?? []).map((row) => ({
      id: row[8] as number,
      run: (row[6] as Buffer).toString('hex'),
      sealed: row[15] as Buffer | null,
    })),
  };
}

function changedOf(row: Row): ChangedRow {
  const [name, , seq, createdSeq, deletedMs, keyVersion] = row.slice(6) as unknown as [
    Buffer,
    null,
    number,
    number,
    number,
    number,
  ];
  return { name, seq, createdSeq, isDeleted: deletedMs !== 0, keyVersion, keys: row[15] as Buffer | null };
}
