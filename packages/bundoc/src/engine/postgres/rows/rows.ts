import { AppError } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { DocumentRef } from '../../../crypto/stored-text.ts';
import { COMMIT_BYTES_MAX } from '../../port/port.ts';
import { type DocumentState, FILE_NAME_BYTES, REV_BYTES } from '../../port/state.ts';
import type { Row } from '../database/database.ts';
import type { RowCipher } from './row-cipher.ts';

/** Longer than any revision, collection token or sealed state of a document. */
const SMALL_BYTES_MAX = 4_096;
/**
 * A truncated value is undecryptable. Without this bound, one planted row would exhaust the memory of each
 * node.
 */
export const small = (column: string) => `substr(${column}, 1, ${SMALL_BYTES_MAX}) AS ${column}`;
/** The columns of {@link readStateRow}, in order. */
export const ROW_COLUMNS = `name, ${small('collection')}, seq, created_seq, deleted_ms, key_version, ${small('rev')}, ${small('state')}, coalesce(octet_length(sealed), 0)`;
/** The sealed bytes; null when they are longer than any document, which is damage. */
export const SEALED = `CASE WHEN octet_length(sealed) <= ${COMMIT_BYTES_MAX} THEN sealed END`;

/** Longer than any sealed keys of a document. */
const KEYS_BYTES_MAX = 131_072;
/** The sealed keys of a document in indexes; null when they are longer than any. */
export const KEYS = `CASE WHEN octet_length(keys) <= ${KEYS_BYTES_MAX} THEN keys END`;

/**
 * A query for the rows of many names that looks up each one in the unique index. With `= ANY`, a planner with
 * stale or no statistics reads the whole project instead, in each group commit.
 *
 * @param names an expression for an array of them.
 * @param row a query for the row of the name `wanted.one`.
 */
export function eachByName(names: string, row: string): string {
  return `SELECT found.* FROM unnest(${names}) AS wanted (one) CROSS JOIN LATERAL (${row} LIMIT 1) AS found`;
}

/**
 * The same for all tokens of many names.
 *
 * @param columns of an entry.
 */
export function entriesByName(names: string, columns: string): string {
  return `SELECT found.* FROM unnest(${names}) AS wanted (one) CROSS JOIN LATERAL (${entriesOfWanted('$1', columns)}) AS found`;
}

/** The entries of documents in many projects: arrays of projects and of names, of the same length. */
export function entriesByProjectAndName(projects: string, names: string, columns: string): string {
  return `SELECT found.* FROM unnest(${projects}, ${names}) AS wanted (project, one) CROSS JOIN LATERAL (
    ${entriesOfWanted('wanted.project', columns)}
  ) AS found`;
}

function entriesOfWanted(project: string, columns: string): string {
  return `SELECT ${columns} FROM bundoc.index_tokens
    WHERE index_tokens.project = ${project} AND index_tokens.name = wanted.one LIMIT ${ENTRIES_OF_NAME_MAX}`;
}

/**
 * More than a document can have: an index has a thousand, and a collection has sixteen indexes, and as many
 * being removed.
 */
const ENTRIES_OF_NAME_MAX = 100_000;

type StateRow = readonly [Buffer, Buffer, number, number, number, number, Buffer, Buffer, number];
type Nullable<T> = { readonly [At in keyof T]: T[At] | null };

/**
 * The state of a document from its row. The clear columns must equal the sealed ones.
 *
 * @throws OpenError for a row that was changed or combined from others; VersionUnknown.
 */
export function readStateRow(row: Row, rows: RowCipher): DocumentState {
  const [name, collection, seq, createdSeq, deletedMs, keyVersion, rev, sealed, size] =
    row as unknown as StateRow;
  // The owner of the schema may let columns be null.
  if ([name, collection, rev, sealed].some((bytes) => !Buffer.isBuffer(bytes))) throw new OpenError();
  const state = rows.openState(name, keyVersion, sealed);
  const isAsSealed =
    state.seq === seq &&
    state.createdSeq === createdSeq &&
    state.deletedMs === deletedMs &&
    state.keyVersion === keyVersion &&
    state.rev.equals(rev) &&
    state.size === size &&
    rows.collectionToken(state.collection).equals(collection);
  if (!isAsSealed) throw new OpenError();
  return state;
}

/**
 * Requires that a document is not later than its project's head, as the same transaction or statement sees
 * both. Otherwise the head is an older one, and its next positions would repeat.
 *
 * @throws AppError `integrity_error`.
 */
export function requireUpTo(headSeq: number, { seq }: Pick<DocumentState, 'seq'>): void {
  if (seq > headSeq)
    throw new AppError('integrity_error', {
      cause: new Error(`heads.seq is ${headSeq}, and a document has the later position ${seq}`),
    });
}

/**
 * The clear columns of an undecryptable row, so that the document can be written again. Only the sealed state
 * has the creation time. The owner of the schema may let columns be null: they have values then that no
 * document has.
 */
export function clearStateOf(row: Row, { collection, id }: DocumentRef, createdMs: number): DocumentState {
  const [fileName, , seq, createdSeq, deletedMs, keyVersion, rev, , size] =
    row as unknown as Nullable<StateRow>;
  return {
    collection,
    id,
    fileName: fileName ?? Buffer.alloc(FILE_NAME_BYTES),
    createdMs,
    seq: seq ?? 0,
    createdSeq: createdSeq ?? 0,
    deletedMs: deletedMs ?? 0,
    keyVersion: keyVersion ?? 0,
    rev: rev ?? Buffer.alloc(REV_BYTES),
    size: size ?? 0,
  };
}

/** Undefined for undecryptable bytes. */
export function orUndefined<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
}
