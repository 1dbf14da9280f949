import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { openOwnDocument } from '../../open-document.ts';
import type { Finding, OnProgress, VerifiedStore } from '../../port/reports.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { RowCipher, VersionUnknown } from '../rows/row-cipher.ts';
import { orUndefined, ROW_COLUMNS, readStateRow, SEALED } from '../rows/rows.ts';
import { SEALED_COUNT } from '../rows/seal-counter.ts';
import { type CheckedDocument, EntriesCheck } from './verify-entries.ts';

/** A page of rows, documents and tombstones, by name. */
const ROWS_BY_NAME: Statement = {
  name: 'bundoc-rows-by-name-2',
  text: `
SELECT ${ROW_COLUMNS}, ${SEALED} FROM (
  SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running FROM (
    SELECT * FROM bundoc.documents WHERE project = $1 AND name > $2 ORDER BY name LIMIT 500
  ) AS d WINDOW w AS (ORDER BY name)
) AS d WHERE place = 1 OR running IS NULL OR running <= 4194304 ORDER BY name`,
};
/** The latest commit's position, and the number of documents and tombstones. No row without a project. */
const EXTENT: Statement = {
  name: 'bundoc-extent-2',
  text: `SELECT seq, (SELECT count(*) FROM bundoc.documents WHERE project = $1) FROM bundoc.heads WHERE project = $1`,
};
const COLLECTIONS: Statement = {
  name: 'bundoc-verify-collections-1',
  text: 'SELECT token, key_version, name, documents, bytes FROM bundoc.collections WHERE project = $1',
};
const VERSIONS: Statement = {
  name: 'bundoc-verify-versions-2',
  text: `SELECT version, documents, ${SEALED_COUNT} FROM bundoc.key_versions WHERE project = $1`,
};

/** Run it first in a transaction, so that all of it reads one snapshot. */
export const SNAPSHOT_TRANSACTION = 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY';

interface Counts {
  readonly documents: number;
  readonly bytes: number;
}

interface CheckedRow {
  readonly state?: DocumentState;
  /** The text of a living document. */
  readonly text?: Buffer;
  readonly problem?: string;
}

/**
 * Decrypts and checks everything of a project in the database, with its counts and the entries of its
 * indexes; changes nothing. It cannot detect a row that was removed, or replaced by an earlier state, if the
 * counts were changed as well.
 */
export async function verifyRows(
  queryable: Queryable,
  project: string,
  cipher: ProjectCipher,
  onProgress: OnProgress,
): Promise<VerifiedStore> {
  const [head] = await queryable.query(EXTENT, [project]);
  if (head === undefined)
    return { documents: 0, findings: [{ part: 'heads', problem: 'the row is missing' }] };
  const [seq, total] = head as unknown as [number, number];
  const rows = new RowCipher(project, cipher);
  const check = new RowsCheck(project, cipher, rows, seq);
  const entries = await EntriesCheck.begin(queryable, project, rows);
  const pageAfter = (name: Buffer) => queryable.query(ROWS_BY_NAME, [project, name]);
  let done = 0;
  for (let page = await pageAfter(Buffer.alloc(0)); page.length > 0; ) {
    const sound: CheckedDocument[] = [];
    for (const row of page) {
      sound.push(...check.take(row));
      onProgress(++done, total);
    }
    check.findings.push(...(await entries.findings(sound)));
    page = await pageAfter(page.at(-1)?.[0] as Buffer);
  }
  const { documents, findings } = check;
  if (findings.length > 0) return { documents, findings };
  const wrong = [...(await check.countFindings(queryable)), ...(await entries.end())];
  return { documents, findings: wrong };
}

/** Checks each row, and counts the rows by collection and key version. */
class RowsCheck {
  readonly #project: string;
  readonly #cipher: ProjectCipher;
  readonly #rows: RowCipher;
  /** The position of the last commit. */
  readonly #lastSeq: number;
  readonly #byCollection = new Map<string, Counts>();
  readonly #byVersion = new Map<number, number>();
  readonly findings: Finding[] = [];
  /** Number of living documents. */
  documents = 0;

  constructor(project: string, cipher: ProjectCipher, rows: RowCipher, lastSeq: number) {
    this.#project = project;
    this.#cipher = cipher;
    this.#rows = rows;
    this.#lastSeq = lastSeq;
  }

  /** @returns the document, if its row is intact. */
  take(row: Row): CheckedDocument[] {
    const name = (row[0] as Buffer).toString('hex');
    const { state, text, problem } = this.#checked(row, name);
    if (state?.deletedMs === 0) this.#count(state);
    if (problem !== undefined) this.findings.push({ part: name, problem });
    return problem !== undefined || state === undefined ? [] : [{ state, text }];
  }

  #count({ collection, keyVersion, size }: DocumentState): void {
    this.documents++;
    this.#byVersion.set(keyVersion, (this.#byVersion.get(keyVersion) ?? 0) + 1);
    const { documents, bytes } = this.#byCollection.get(collection) ?? { documents: 0, bytes: 0 };
    this.#byCollection.set(collection, { documents: documents + 1, bytes: bytes + size });
  }

  #checked(row: Row, name: string): CheckedRow {
    try {
      const state = readStateRow(row, this.#rows);
      if (this.#cipher.fileName(state) !== name) return { state, problem: 'the row is of another document' };
      if (state.seq > this.#lastSeq) return { state, problem: 'is later than the last commit' };
      if (state.deletedMs !== 0) return { state };
      const opened = openOwnDocument(this.#cipher, name, row.at(-1) as Buffer);
      if ('fault' in opened) return { state, problem: opened.fault };
      const isSame = opened.metadata._rev === state.rev.toString('hex');
      return isSame
        ? { state, text: opened.text }
        : { state, problem: 'holds another revision than the row says' };
    } catch (error) {
      if (error instanceof OpenError)
        return { problem: 'the row does not open, or is not as it was written' };
      if (error instanceof VersionUnknown)
        return { problem: 'is sealed under a version of the key that the project does not list' };
      throw error;
    }
  }

  /** Compares the stored counts with the counted rows. */
  async countFindings(queryable: Queryable): Promise<Finding[]> {
    const found = new Map(this.#byCollection);
    const wrong: Finding[] = [];
    for (const row of await queryable.query(COLLECTIONS, [this.#project])) {
      const [token, version, sealed, documents, bytes] = row as unknown as CollectionRow;
      const part = `collection ${token.toString('hex')}`;
      try {
        const name = this.#rows.openCollectionName(token, version, sealed);
        const counts = found.get(name) ?? { documents: 0, bytes: 0 };
        found.delete(name);
        if (counts.documents !== documents || counts.bytes !== bytes)
          wrong.push({ part, problem: 'is counted wrongly' });
      } catch (error) {
        if (!(error instanceof OpenError || error instanceof VersionUnknown)) throw error;
        wrong.push({ part, problem: 'its name does not open' });
      }
    }
    if (found.size > 0) wrong.push({ part: 'collections', problem: 'a row is missing' });
    for (const row of await queryable.query(VERSIONS, [this.#project])) {
      const [version, counted, seals] = row as unknown as [number, number, Buffer | null];
      const part = `key version ${version}`;
      if ((this.#byVersion.get(version) ?? 0) !== counted)
        wrong.push({ part, problem: 'its documents are counted wrongly' });
      const isKnown = this.#cipher.hasVersion(version);
      if (isKnown && orUndefined(() => this.#rows.openCount(version, seals)) === undefined)
        wrong.push({ part, problem: 'the count of its seals does not open' });
    }
    return wrong;
  }
}

type CollectionRow = readonly [
  token: Buffer,
  version: number,
  sealed: Buffer,
  documents: number,
  bytes: number,
];
