import { SMALL_FILE_BYTES_MAX } from '../embedded/disk.ts';
import type { Queryable, Statement, Transaction } from './database.ts';

/** Of a mark, in characters: more than any genuine one has. */
export const MARKER_LENGTH_MAX = 65_536;
/** A longer file is read as an empty one, which is damaged. Without these bounds, one planted row would exhaust the memory of each node. */
const FILE = `CASE WHEN octet_length(file) > ${SMALL_FILE_BYTES_MAX} THEN '' ELSE file END`;
/** Of a longer mark, only the beginning is read: it is not genuine. */
export const MARKER = `left(marker, ${MARKER_LENGTH_MAX})`;

/** The file and whether there is content, as of one moment: another node may be making the project. */
const READ: Statement = {
  name: 'bundoc-read-project-3',
  text: `SELECT ${FILE}, ${MARKER}, EXISTS (SELECT FROM bundoc.heads WHERE project = $1)
         FROM (SELECT) AS one LEFT JOIN bundoc.projects ON project = $1`,
};
const LOCK_ROW: Statement = {
  name: 'bundoc-project-row-locked-2',
  text: `SELECT ${FILE}, ${MARKER} FROM bundoc.projects WHERE project = $1 FOR UPDATE`,
};
const SET_MARKER: Statement = {
  name: 'bundoc-set-marker-2',
  text: `UPDATE bundoc.projects SET marker = $2 WHERE project = $1 AND ${MARKER} IS NOT DISTINCT FROM $3 RETURNING 1`,
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
const INSERT: Statement = {
  name: 'bundoc-insert-project-1',
  text: 'INSERT INTO bundoc.projects (project, file) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING RETURNING 1',
};
const REPLACE: Statement = {
  name: 'bundoc-replace-project-1',
  text: 'UPDATE bundoc.projects SET file = $2 WHERE project = $1 AND file = $3 RETURNING 1',
};

/** What the database has under a project's id. */
export interface FileRow {
  /** The project's file, or a mark in its place; undefined where there is neither, and empty where it is too long for either. */
  readonly text: string | undefined;
  /** The mark beside the file, or where there is none; at most {@link MARKER_LENGTH_MAX} characters of it. */
  readonly marker: string | undefined;
  /** Whether there are rows of content. */
  readonly hasContent: boolean;
}

/** As of one moment. @throws AppError of the database, as all of these. */
export async function readFileRow(queryable: Queryable, project: string): Promise<FileRow> {
  const [row] = await queryable.query(READ, [project]);
  const [text, marker, hasContent] = row as unknown as [string | null, string | null, boolean];
  return { text: text ?? undefined, marker: marker ?? undefined, hasContent };
}

/** File and mark, which nobody else changes before the transaction ends; undefined where there is no row. */
export async function lockRow(
  transaction: Transaction,
  project: string,
): Promise<Omit<FileRow, 'hasContent'> | undefined> {
  const [row] = await transaction.query(LOCK_ROW, [project]);
  if (row === undefined) return undefined;
  const [text, marker] = row as unknown as [string | null, string | null];
  return { text: text ?? undefined, marker: marker ?? undefined };
}

/** Changes the mark beside a project's file from the very one that the change was decided on. @returns false when it is another one by now. */
export async function changeMarker(
  queryable: Queryable,
  project: string,
  marker: string | undefined,
  former: string | undefined,
): Promise<boolean> {
  if (marker === undefined && (await queryable.query(REMOVE_MARKER_ROW, [project, former])).length > 0)
    return true;
  return (await queryable.query(SET_MARKER, [project, marker ?? null, former ?? null])).length > 0;
}

/** Removes the file of a project, and leaves the mark. */
export async function leaveMarker(transaction: Transaction, project: string, marker: string): Promise<void> {
  await transaction.query(LEAVE_MARKER, [project, marker]);
}

/** @returns false when there is a row already. */
export async function insertFileRow(queryable: Queryable, project: string, text: string): Promise<boolean> {
  return (await queryable.query(INSERT, [project, text])).length > 0;
}

/** Changes the very text that the change was decided on. @returns false when it is another one by now. */
export async function replaceFileRow(
  queryable: Queryable,
  project: string,
  text: string,
  former: string,
): Promise<boolean> {
  return (await queryable.query(REPLACE, [project, text, former])).length > 0;
}
