import { type Path, pathOf } from '../../../values/path.ts';
import { readValue } from '../../../values/value.ts';
import { type IndexKeys, indexKeysOf } from '../../indexes/index-keys.ts';
import type { IndexSpec, IndexState } from '../../port/index-port.ts';
import type { Queryable, Statement } from '../database/database.ts';
import { PAGE_BYTES } from '../order/page.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { orUndefined } from '../rows/rows.ts';

/** An index of a project, as stored in the database. Unique ones have tokens. */
export interface IndexRow {
  /** Never reused. */
  readonly id: number;
  readonly collection: string;
  readonly spec: IndexSpec;
  readonly paths: readonly Path[];
  /** The revision of its definition. */
  readonly rev: string;
  /** Commits after this position have written its keys and tokens. */
  readonly since: number;
  /** Documents created up to this position have their tokens, too. */
  readonly builtTo: number;
  /** The number of documents indexed so far, and the number when the index was created. */
  readonly indexed: number;
  readonly total: number;
  /** The number of duplicates in a unique index; undefined until all tokens are there. */
  readonly duplicates: number | undefined;
  /** The number of documents in its runs; undefined once they are whole. */
  readonly runsIndexed: number | undefined;
  /** Bytes of its runs. */
  readonly bytes: number;
  /** The version of the key that its runs are sealed under. */
  readonly runsKeyVersion: number | undefined;
  /** Increases whenever the runs are replaced. */
  readonly runsVersion: number;
  /** It has runs that nobody reads any more, to be removed. */
  readonly hasLeftRuns: boolean;
}

/** The indexes of a project in one version. */
export interface IndexRows {
  /** `heads.index_version`. */
  readonly version: number;
  readonly byCollection: ReadonlyMap<string, readonly IndexRow[]>;
  /** Ids of indexes whose entries are being removed. */
  readonly dropped: readonly number[];
  /** Ids of undecryptable indexes, by the token of their collection in hex: their entries are unknown. */
  readonly damaged: ReadonlyMap<string, readonly number[]>;
}

export const NO_INDEXES: IndexRows = {
  version: 0,
  byCollection: new Map(),
  dropped: [],
  damaged: new Map(),
};

/** A document's entries in one index, for each combination of its values in all fields. */
export interface DocumentEntries {
  readonly index: IndexRow;
  /** Undefined for a deleted document. */
  readonly keys: IndexKeys | undefined;
  /** In hex; only those of a unique index. None for a document with more combinations than an index has. */
  readonly tokens: readonly string[];
}

/** How long readers may use a run that was replaced, and how long the writing of one may pause. */
const LEFT_S = 3_600;
/** A condition for a run that nobody reads any more. */
export const IS_LEFT = `left_at < now() - interval '${LEFT_S} seconds'`;

const ROWS: Statement = {
  name: 'bundoc-indexes-1',
  text: `
SELECT h.index_version, i.id, i.collection, i.key_version, i.spec, i.since, i.built_to, i.indexed, i.total, i.duplicates, i.dropped,
  i.runs_indexed, i.pages, i.runs_version, i.runs_key_version,
  EXISTS (SELECT FROM bundoc.index_runs WHERE project = $1 AND index_id = i.id AND ${IS_LEFT})
FROM bundoc.heads AS h LEFT JOIN bundoc.indexes AS i ON i.project = h.project WHERE h.project = $1 ORDER BY i.id`,
};

/** After this statement, every committing node must write entries. */
export const CHANGED: Statement = {
  name: 'bundoc-indexes-changed-1',
  text: 'UPDATE bundoc.heads SET index_version = $2 WHERE project = $1',
};

/** Reads the indexes of a project. @throws VersionUnknown, and those of the database. */
export async function readIndexes(database: Queryable, project: string, rows: RowCipher): Promise<IndexRows> {
  const found = await database.query(ROWS, [project]);
  const byCollection = new Map<string, IndexRow[]>();
  const damaged = new Map<string, number[]>();
  const dropped: number[] = [];
  for (const row of found) {
    const [, id, token, , , , , , , , isDropped] = row as unknown as Columns;
    if (id === null) continue;
    if (isDropped) {
      dropped.push(id);
      continue;
    }
    const index = indexOf(row as unknown as Columns, rows);
    if (index === undefined) {
      const hex = token.toString('hex');
      damaged.set(hex, [...(damaged.get(hex) ?? []), id]);
    } else byCollection.set(index.collection, [...(byCollection.get(index.collection) ?? []), index]);
  }
  return { version: Number(found[0]?.[0] ?? 0), byCollection, dropped, damaged };
}

type Columns = readonly [
  version: number,
  id: number | null,
  collection: Buffer,
  keyVersion: number,
  spec: Buffer,
  since: number,
  builtTo: number,
  indexed: number,
  total: number,
  duplicates: number | null,
  isDropped: boolean,
  runsIndexed: number | null,
  pages: number,
  runsVersion: number,
  runsKeyVersion: number | null,
  hasLeftRuns: boolean,
];

/** The sealed content of an index's row. */
interface SealedSpec {
  readonly collection: string;
  readonly name: string;
  readonly fields: readonly string[];
  readonly unique: boolean;
  readonly rev: string;
}

/** Undefined for a row that was changed or combined from others. */
function indexOf(row: Columns, rows: RowCipher): IndexRow | undefined {
  const [, id, token, keyVersion, sealed, since, builtTo, indexed, total, duplicates] = row;
  const [runsIndexed, pages, runsVersion, runsKeyVersion, hasLeftRuns] = row.slice(11) as [
    number | null,
    number,
    number,
    number | null,
    boolean,
  ];
  const text = orUndefined(() => rows.openIndexSpec(Number(id), keyVersion, sealed));
  if (text === undefined) return undefined;
  const { collection, name, fields, unique, rev } = JSON.parse(text) as SealedSpec;
  if (!rows.collectionToken(collection).equals(token)) return undefined;
  return {
    id: Number(id),
    collection,
    spec: { name, fields, unique },
    paths: fields.map(pathOf),
    rev,
    since,
    builtTo,
    indexed,
    total,
    duplicates: duplicates ?? undefined,
    runsIndexed: runsIndexed ?? undefined,
    bytes: pages * PAGE_BYTES,
    runsVersion,
    runsKeyVersion: runsKeyVersion ?? undefined,
    hasLeftRuns,
  };
}

/** The text that is sealed for an index. */
export function specText(collection: string, spec: IndexSpec, rev: string): string {
  const { name, fields, unique } = spec;
  const sealed: SealedSpec = { collection, name, fields, unique, rev };
  return JSON.stringify(sealed);
}

/** It is ready when it has all tokens, if it needs any, and all runs. */
export function stateOf({ spec, duplicates, indexed, total, runsIndexed }: IndexRow): IndexState {
  const done = [
    ...(spec.unique && duplicates === undefined ? [indexed] : []),
    ...(runsIndexed === undefined ? [] : [runsIndexed]),
  ];
  const [first] = done;
  if (first !== undefined)
    return { state: 'building', indexed: Math.min(...done), total: Math.max(first, total) };
  if (duplicates === undefined || duplicates === 0) return { state: 'ready' };
  return { state: 'duplicates', duplicates };
}

/** Whether it enforces uniqueness. */
export function isEnforced({ spec, duplicates }: IndexRow): boolean {
  return spec.unique && (duplicates ?? 0) === 0;
}

/** Keys of a document by the id of the index: ids are never used again. */
export type PreparedKeys = ReadonlyMap<number, IndexKeys>;

/**
 * The entries of a document in some indexes of its collection.
 *
 * @param text of the stored document.
 * @param prepared keys that are known already.
 */
export function toEntries(
  indexes: readonly IndexRow[],
  text: Buffer,
  rows: RowCipher,
  prepared?: PreparedKeys,
): DocumentEntries[] {
  const isPrepared = indexes.every(({ id }) => prepared?.has(id) === true);
  const value = isPrepared ? null : readValue(text.toString());
  return indexes.map((index) => {
    const keys = prepared?.get(index.id) ?? indexKeysOf(index.paths, value);
    const complete = index.spec.unique ? keys.complete : [];
    return { index, keys, tokens: complete.map((key) => tokenOf(index, key, rows)) };
  });
}

function tokenOf({ collection, spec: { fields } }: IndexRow, key: string, rows: RowCipher): string {
  return rows.indexToken(JSON.stringify([collection, ...fields]), key).toString('hex');
}
