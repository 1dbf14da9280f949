import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type DocumentRef, readStoredMetadata } from '../../../crypto/stored-text.ts';
import { changePageOf, horizonAt } from '../../port/change-page.ts';
import {
  type ChangePage,
  COMMIT_BYTES_MAX,
  type CollectionSummary,
  type DocumentPage,
  type ListedDocument,
  type ListQuery,
  type Position,
  type SealedChange,
  type SealedPage,
  type SealedPageLimits,
  type StoredDocument,
} from '../../port/port.ts';
import { ProjectGone } from '../commit/must-reopen.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';
import type { OpenedRow } from '../rows/opened-row.ts';
import { type RowCipher, versionMissing } from '../rows/row-cipher.ts';
import { orUndefined, ROW_COLUMNS, readStateRow, requireUpTo, SEALED } from '../rows/rows.ts';
import type { SealedRow, SharedReads } from './shared-reads.ts';

/** The columns of a page's rows behind those of a document: the head, and the size of the collection. */
const SHOWN = `h.seq, (SELECT documents FROM bundoc.collections WHERE project = $1 AND token = $2)`;

/**
 * A page with the head in one snapshot. No row means that the project does not exist; a row of nulls means
 * that the page is empty. With a separate query for the head, a fence could be lifted in between, and the
 * empty page would seem right.
 */
const LIST: Statement = {
  name: 'bundoc-list-5',
  text: `
SELECT d.*, ${SHOWN} FROM bundoc.heads AS h LEFT JOIN LATERAL (
  SELECT ${ROW_COLUMNS}, ${SEALED}, total FROM (
    SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running, count(*) OVER () AS total FROM (
      SELECT * FROM bundoc.documents
      WHERE project = $1 AND collection = $2 AND deleted_ms = 0 AND created_seq > $3
      ORDER BY created_seq LIMIT $4 + 1
    ) AS d WINDOW w AS (ORDER BY created_seq)
  ) AS d WHERE place <= $4 AND (place = 1 OR running <= $5)
) AS d ON true WHERE h.project = $1 ORDER BY d.created_seq`,
};

/** The head, and the changes with their bytes up to a limit, in one snapshot. */
const SEALED_CHANGES: Statement = {
  name: 'bundoc-sealed-changes-3',
  text: `
SELECT h.seq, h.purged_seq, d.* FROM bundoc.heads AS h LEFT JOIN LATERAL (
  SELECT ${ROW_COLUMNS}, ${SEALED}, total FROM (
    SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running, count(*) OVER () AS total FROM (
      SELECT * FROM bundoc.documents WHERE project = $1 AND documents.seq > $2 AND documents.seq > 0 ORDER BY documents.seq LIMIT $3
    ) AS d WINDOW w AS (ORDER BY d.seq)
  ) AS d WHERE place = 1 OR running IS NULL OR running <= $4
) AS d ON true WHERE h.project = $1 ORDER BY d.seq`,
};

const COLLECTIONS: Statement = {
  name: 'bundoc-collections-3',
  text: `SELECT c.token, c.key_version, c.name, c.documents, c.bytes
         FROM bundoc.heads AS h LEFT JOIN bundoc.collections AS c ON c.project = $1 AND c.documents > 0
         WHERE h.project = $1 ORDER BY c.first_seq, c.token`,
};

const GET_SHOWN: Statement = {
  name: 'bundoc-get-shown-1',
  text: `SELECT ${ROW_COLUMNS}, ${SEALED} FROM bundoc.documents WHERE project = $1 AND name = $2 AND deleted_ms = 0`,
};

/** A document of a page, and the position of its last change. */
export interface ListedRow extends ListedDocument {
  readonly seq: Position;
}

/** A page, with what else its statement has read. */
export interface ReadPage extends DocumentPage {
  readonly documents: readonly ListedRow[];
  /** The position of the last commit that it shows. */
  readonly asOf: Position;
  /** The number of documents in the collection. */
  readonly total: number;
}

export interface RowReaderOptions {
  readonly project: string;
  readonly database: Queryable;
  /** Shared by all projects of this node. */
  readonly reads: SharedReads;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly onIntegrityError: (name: string) => void;
}

/**
 * Reads of one project. Clear columns are compared with the sealed ones. A read without a result checks that
 * the project exists, because another node deletes one by removing its head first. Errors of every method:
 * VersionUnknown, ProjectGone, and those of the database.
 */
export class RowReader {
  readonly #options: RowReaderOptions;
  readonly #rows: RowCipher;

  constructor(options: RowReaderOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /** @throws AppError `integrity_error`. */
  async get(ref: DocumentRef): Promise<StoredDocument | undefined> {
    const name = this.#options.cipher.fileName(ref);
    const { clock, reads, project } = this.#options;
    const row = await retryUnavailable(clock, () => reads.get(project, name));
    if (row === 'gone') throw projectGone();
    if (row === 'absent') return undefined;
    const document = this.#open(ref, name, row);
    if (document === undefined) throw this.#damaged(name);
    return document;
  }

  /** The document as a transaction sees it. @throws AppError `integrity_error`. */
  async getIn(transaction: Queryable, ref: DocumentRef): Promise<StoredDocument | undefined> {
    const { cipher, project } = this.#options;
    const name = cipher.fileName(ref);
    const [row] = await transaction.query(GET_SHOWN, [project, Buffer.from(name, 'hex')]);
    if (row === undefined) return undefined;
    const state = this.#requiredState(row);
    const document = this.#open(ref, name, { ...state, sealed: row[9] as Buffer });
    if (document === undefined) throw this.#damaged(name);
    return document;
  }

  /**
   * A page of a collection.
   *
   * @param transaction reads the page; by default it is any connection, and an outage is waited out.
   */
  async list(
    { collection, after, limit, bytesMax, work }: ListQuery,
    transaction?: Queryable,
  ): Promise<ReadPage> {
    const { project } = this.#options;
    const values: unknown[] = [project, this.#rows.collectionToken(collection), after, limit, bytesMax];
    const rows = await (transaction?.query(LIST, values) ?? this.#query(LIST, values));
    const [first] = rows;
    if (first === undefined) throw projectGone();
    const [asOf, total] = [first[11] as number, (first[12] as number | null) ?? 0];
    const found = rows.filter(([name]) => name !== null);
    const documents: ListedRow[] = [];
    const unreadable: string[] = [];
    const unnamed: string[] = [];
    for (const row of found) {
      const turn = work?.pause();
      if (turn !== undefined) await turn;
      const name = (row[0] as Buffer).toString('hex');
      const state = this.#stateOf(row);
      const document = state && this.#open(state, name, { ...state, sealed: row[9] as Buffer });
      if (document !== undefined) {
        documents.push({ ...document, position: row[3] as number, seq: row[2] as number });
        continue;
      }
      this.#options.onIntegrityError(name);
      if (state === undefined) unnamed.push(name);
      else unreadable.push(state.id);
    }
    work?.leave();
    const last = found.at(-1);
    const hasMore = last !== undefined && (last[10] as number) > found.length;
    const next = hasMore ? (last[3] as number) : undefined;
    return { documents, unreadable, unnamed, next, asOf, total };
  }

  /**
   * Opens a row of a living document: the columns of a state, and the sealed bytes, which are null if they
   * were not read. Damage is reported, and not thrown.
   *
   * @throws VersionUnknown; AppError `integrity_error` for a row after the last commit.
   */
  openRow(row: Row, seq: Position): OpenedRow {
    const name = (row[0] as Buffer).toString('hex');
    const sealed = row[9] as Buffer | null;
    const state = this.#stateOf(row);
    if (state !== undefined) requireUpTo(seq, state);
    const known = { name, seq: state?.seq, id: state?.id, size: state?.size ?? 0 };
    if (state !== undefined && sealed === null && state.size <= COMMIT_BYTES_MAX)
      return { ...known, document: 'unread' };
    const document = state && sealed !== null ? this.#open(state, name, { ...state, sealed }) : undefined;
    if (document === undefined) this.#options.onIntegrityError(name);
    return { ...known, document };
  }

  /** @throws AppError `position_gone`. */
  async changes(after: Position, limit: number, horizon: Position): Promise<ChangePage> {
    const { clock, reads, project } = this.#options;
    const found = await retryUnavailable(clock, () => reads.changes({ project, after, limit }));
    if (found === undefined) throw projectGone();
    const { seq, purgedSeq, rows } = found;
    const known = horizonAt({ lastSeq: seq, purgedSeq }, after, horizon);
    const states = rows.map((row) => this.#requiredState(row));
    for (const state of states) requireUpTo(seq, state);
    return changePageOf(states, seq, known);
  }

  /**
   * Reads one snapshot: a page with all changes after its start reaches the head. @throws AppError
   * `integrity_error`.
   */
  async sealedChanges(after: Position, { limit, bytesMax }: SealedPageLimits): Promise<SealedPage> {
    const rows = await this.#query(SEALED_CHANGES, [this.#options.project, after, limit, bytesMax]);
    const [head] = rows;
    if (head === undefined) throw projectGone();
    const [seq, forgotten] = head as unknown as [number, number];
    const changes = rows.filter(([, , name]) => name !== null).map(([, , ...row]) => this.#sealedChange(row));
    for (const { state } of changes) requireUpTo(seq, state);
    const total = Number(head.at(-1) ?? 0);
    const isComplete = changes.length === total && total < limit;
    const position = isComplete ? seq : (changes.at(-1)?.state.seq ?? after);
    return { changes, position, isComplete, forgotten };
  }

  async position(): Promise<Position> {
    const { clock, reads, project } = this.#options;
    const position = await retryUnavailable(clock, () => reads.position(project));
    if (position === undefined) throw projectGone();
    return position;
  }

  async collections(): Promise<readonly CollectionSummary[]> {
    const rows = await this.#query(COLLECTIONS, [this.#options.project]);
    if (rows.length === 0) throw projectGone();
    const found = rows.filter(([token]) => token !== null);
    return found.map((row) => {
      const [token, keyVersion, name, documents, bytes] = row as unknown as [
        Buffer,
        number,
        Buffer,
        number,
        number,
      ];
      return { name: this.#rows.openCollectionName(token, keyVersion, name), documents, bytes };
    });
  }

  #query(statement: Statement, values: readonly unknown[]): Promise<readonly Row[]> {
    const { database, clock } = this.#options;
    return retryUnavailable(clock, () => database.query(statement, values));
  }

  /** The document; undefined when the bytes are not this state of it. */
  #open(ref: DocumentRef, name: string, { keyVersion, rev, sealed }: SealedRow): StoredDocument | undefined {
    const { cipher } = this.#options;
    const text = orUndefined(() => {
      if (!cipher.hasVersion(keyVersion)) throw versionMissing(keyVersion, cipher);
      return cipher.openDocument(name, sealed, keyVersion);
    });
    if (text === undefined) return undefined;
    const metadata = readStoredMetadata(text, ref);
    return metadata !== undefined && metadata._rev === rev?.toString('hex') ? { metadata, text } : undefined;
  }

  #stateOf(row: Row) {
    return orUndefined(() => readStateRow(row, this.#rows));
  }

  /** An unreadable change must not be omitted silently. */
  #requiredState(row: Row) {
    const state = this.#stateOf(row);
    if (state === undefined) throw this.#damaged((row[0] as Buffer).toString('hex'));
    return state;
  }

  /** A backup must not contain an undecryptable document. */
  #sealedChange(row: Row): SealedChange {
    const state = this.#requiredState(row);
    if (state.deletedMs !== 0) return { state, sealed: undefined };
    const sealed = row[9] as Buffer;
    const name = state.fileName.toString('hex');
    if (this.#open(state, name, { ...state, sealed }) === undefined) throw this.#damaged(name);
    return { state, sealed };
  }

  #damaged(name: string): AppError {
    this.#options.onIntegrityError(name);
    return new AppError('integrity_error');
  }
}

export function projectGone(): ProjectGone {
  return new ProjectGone('the project is not there any more');
}
