import { SMALL_FILE_BYTES_MAX } from '../../projects/project-file.ts';
import type { FoundHead } from '../../projects/projects.ts';
import type { Queryable, Row, Statement, Transaction } from '../database/database.ts';

/** Maximum length of a mark that is read, in characters: more than any genuine one has. */
const MARKER_LENGTH_MAX = 65_536;
/**
 * A longer file is read as an empty one, which is damaged. Without these bounds, one planted row would
 * exhaust the memory of each node.
 */
const FILE = `CASE WHEN octet_length(file) > ${SMALL_FILE_BYTES_MAX} THEN '' ELSE file END`;
/** Only the start of a longer mark is read: it is not genuine. */
export const MARKER = `left(marker, ${MARKER_LENGTH_MAX})`;

/**
 * Maximum number of key versions and collections that the statement lists; of more, it only returns the
 * number.
 */
const NAMED_MAX = 64;
const TOKEN_BYTES_MAX = 64;
/** Everything that most openings of projects need, in one snapshot, in the order of the questions. */
const READ: Statement = {
  name: 'bundoc-read-projects-2',
  text: `
SELECT p.file, p.marker, head.seq, head.index_version, (
  SELECT string_agg(version || ' ' || documents, ',') FROM (
    SELECT version, documents FROM bundoc.key_versions WHERE key_versions.project = wanted.project LIMIT ${NAMED_MAX + 1}
  ) AS v
), (
  SELECT string_agg(encode(substr(token, 1, ${TOKEN_BYTES_MAX}), 'hex'), ',') FROM (
    SELECT token FROM bundoc.collections WHERE collections.project = wanted.project LIMIT ${NAMED_MAX + 1}
  ) AS c
), EXISTS (SELECT FROM bundoc.lost_projects AS lost WHERE lost.project = wanted.project)
FROM unnest((SELECT $1::text[])) WITH ORDINALITY AS wanted (project, place)
LEFT JOIN LATERAL (
  SELECT ${FILE} AS file, ${MARKER} AS marker FROM bundoc.projects WHERE projects.project = wanted.project LIMIT 1
) AS p ON true
LEFT JOIN LATERAL (SELECT seq, index_version FROM bundoc.heads WHERE heads.project = wanted.project LIMIT 1) AS head ON true
ORDER BY wanted.place`,
};
const LOCK_ROW: Statement = {
  name: 'bundoc-project-row-locked-2',
  text: `SELECT ${FILE}, ${MARKER} FROM bundoc.projects WHERE project = $1 FOR UPDATE`,
};
const CLEAR_MARKER: Statement = {
  name: 'bundoc-clear-marker-1',
  text: `UPDATE bundoc.projects SET marker = NULL WHERE project = $1 AND ${MARKER} = $2 RETURNING 1`,
};
const REMOVE_MARKER_ROW: Statement = {
  name: 'bundoc-remove-marker-row-2',
  text: `DELETE FROM bundoc.projects WHERE project = $1 AND file IS NULL AND ${MARKER} = $2 RETURNING 1`,
};
const LEAVE_MARKER: Statement = {
  name: 'bundoc-leave-marker-1',
  text: `INSERT INTO bundoc.projects (project, marker) VALUES ($1, $2)
         ON CONFLICT (project) DO UPDATE SET file = NULL, marker = excluded.marker`,
};
const REPLACE: Statement = {
  name: 'bundoc-replace-project-1',
  text: 'UPDATE bundoc.projects SET file = $2 WHERE project = $1 AND file = $3 RETURNING 1',
};

/** The database's rows for a project id. */
export interface FileRow {
  /** The project's file; undefined without one, and empty where it is too long for one. */
  readonly text: string | undefined;
  /** The mark, with or without a file; at most {@link MARKER_LENGTH_MAX} characters of it. */
  readonly marker: string | undefined;
  /** Undefined without rows of content. */
  readonly head: FoundHead | undefined;
  /** Whether the database has lost the project. Matters only while it has nothing of it. */
  readonly isLost: boolean;
}

/** Reads one snapshot. @throws AppError of the database, like all of these. */
export async function readFileRow(queryable: Queryable, project: string): Promise<FileRow> {
  const [row] = await readFileRows(queryable, [project]);
  return row as FileRow;
}

/** The same for many projects, in order. */
export async function readFileRows(
  queryable: Queryable,
  projects: readonly string[],
): Promise<readonly FileRow[]> {
  return (await queryable.query(READ, [projects])).map(fileRowOf);
}

function fileRowOf(row: Row): FileRow {
  const [text, marker, seq, indexVersion, documents, collections, isLost] = row as unknown as ReadRow;
  const head =
    seq === null
      ? undefined
      : {
          seq,
          indexVersion: Number(indexVersion),
          documents: namesOf(documents, (names) => new Map(names.map(versionOf))),
          collections: namesOf(collections, (names) => new Set(names)),
        };
  return { text: text ?? undefined, marker: marker ?? undefined, head, isLost };
}

type ReadRow = readonly [
  text: string | null,
  marker: string | null,
  seq: number | null,
  indexVersion: number | null,
  documents: string | null,
  collections: string | null,
  isLost: boolean,
];

function namesOf<T>(text: string | null, of: (names: readonly string[]) => T): T | undefined {
  const names = text === null ? [] : text.split(',');
  return names.length > NAMED_MAX ? undefined : of(names);
}

function versionOf(text: string): [version: number, documents: number] {
  const [version, documents] = text.split(' ');
  return [Number(version), Number(documents)];
}

/** File and mark, locked against other changes until the transaction ends; undefined without a row. */
export async function lockRow(
  transaction: Transaction,
  project: string,
): Promise<Pick<FileRow, 'text' | 'marker'> | undefined> {
  const [row] = await transaction.query(LOCK_ROW, [project]);
  if (row === undefined) return undefined;
  const [text, marker] = row as unknown as [string | null, string | null];
  return { text: text ?? undefined, marker: marker ?? undefined };
}

/** Removes a mark, with or without a file beside it. @returns false for another mark or none. */
export async function removeMarker(queryable: Queryable, project: string, marker: string): Promise<boolean> {
  if ((await queryable.query(REMOVE_MARKER_ROW, [project, marker])).length > 0) return true;
  return (await queryable.query(CLEAR_MARKER, [project, marker])).length > 0;
}

/** Removes the file of a project, and writes the mark. */
export async function leaveMarker(transaction: Transaction, project: string, marker: string): Promise<void> {
  await transaction.query(LEAVE_MARKER, [project, marker]);
}

/**
 * Replaces the text, if it is still the one that the change was based on. @returns false when it has changed.
 */
export async function replaceFileRow(
  queryable: Queryable,
  project: string,
  text: string,
  former: string,
): Promise<boolean> {
  return (await queryable.query(REPLACE, [project, text, former])).length > 0;
}
