import type { Queryable, Statement, Transaction } from './database.ts';

/** The file and whether there is content, as of one moment: another node may be making the project. */
const READ: Statement = {
  name: 'bundoc-read-project-1',
  text: `SELECT (SELECT file FROM bundoc.projects WHERE project = $1), EXISTS (SELECT FROM bundoc.heads WHERE project = $1)`,
};
const LOCK: Statement = {
  name: 'bundoc-project-file-locked-1',
  text: 'SELECT file FROM bundoc.projects WHERE project = $1 FOR UPDATE',
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
  /** The project's file, or a mark in its place; undefined where there is neither. */
  readonly text: string | undefined;
  /** Whether there are rows of content. */
  readonly hasContent: boolean;
}

/** As of one moment. @throws AppError of the database, as all of these. */
export async function readFileRow(queryable: Queryable, project: string): Promise<FileRow> {
  const [row] = await queryable.query(READ, [project]);
  const [text, hasContent] = row as unknown as [string | null, boolean];
  return { text: text ?? undefined, hasContent };
}

/** The text, which nobody else changes before the transaction ends. */
export async function lockFileRow(transaction: Transaction, project: string): Promise<string | undefined> {
  const [row] = await transaction.query(LOCK, [project]);
  return row?.[0] as string | undefined;
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
