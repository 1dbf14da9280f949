import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { openOwnDocument } from '../../open-document.ts';
import type { Finding, OnProgress, VerifiedStore } from '../../reports.ts';
import type { DocumentState } from '../../state.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { RowCipher, VersionUnknown } from '../rows/row-cipher.ts';
import { orUndefined, readStateRow } from '../rows/rows.ts';
import { SEALED_COUNT } from '../rows/seal-counter.ts';
import { EXTENT, ROWS_BY_NAME } from '../rows/store-metadata.ts';
import { type CheckedDocument, EntriesCheck } from './verify-entries.ts';

const COLLECTIONS: Statement = {
  name: 'bundoc-verify-collections-1',
  text: 'SELECT token, key_version, name, documents, bytes FROM bundoc.collections WHERE project = $1',
};
const VERSIONS: Statement = {
  name: 'bundoc-verify-versions-2',
  text: `SELECT version, documents, ${SEALED_COUNT} FROM bundoc.key_versions WHERE project = $1`,
};

/** To be run first in a transaction, so that all of it sees one moment. */
export const ONE_MOMENT = 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY';

interface Counts {
  documents: number;
  bytes: number;
}

interface CheckedRow {
  readonly state?: DocumentState;
  /** Of a living document. */
  readonly text?: Buffer;
  readonly problem?: string;
}

/**
 * Opens and checks everything that the database has of a project, and that its counts and the entries of its
 * blind indexes are right; changes nothing. A row that was removed, or put back whole from an earlier state
 * together with the counts, is not noticed.
 */
export async function verifyRows(
  queryable: Queryable,
  project: string,
  cipher: ProjectCipher,
  onProgress: OnProgress,
): Promise<VerifiedStore> {
  const rows = new RowCipher(project, cipher);
  const findings: Finding[] = [];
  const byCollection = new Map<string, Counts>();
  const byVersion = new Map<number, number>();
  const [head] = await queryable.query(EXTENT, [project]);
  if (head === undefined)
    return { documents: 0, findings: [{ part: 'heads', problem: 'the row is missing' }] };
  const [seq, , total] = head as unknown as [number, number, number];
  const entries = await EntriesCheck.begin(queryable, project, rows);
  let documents = 0;
  let done = 0;
  for (
    let after: Buffer = Buffer.alloc(0), page = await pageAfter(after);
    page.length > 0;
    page = await pageAfter(after)
  ) {
    const sound: CheckedDocument[] = [];
    for (const row of page) {
      const name = (row[0] as Buffer).toString('hex');
      const { state, text, problem } = checked(row, name, seq);
      if (problem !== undefined) findings.push({ part: name, problem });
      else if (state !== undefined) sound.push({ state, text });
      if (state?.deletedMs === 0) {
        documents++;
        byVersion.set(state.keyVersion, (byVersion.get(state.keyVersion) ?? 0) + 1);
        const counts = byCollection.get(state.collection) ?? { documents: 0, bytes: 0 };
        byCollection.set(state.collection, {
          documents: counts.documents + 1,
          bytes: counts.bytes + state.size,
        });
      }
      onProgress(++done, total);
    }
    findings.push(...(await entries.findings(sound)));
    after = page.at(-1)?.[0] as Buffer;
  }
  if (findings.length === 0) findings.push(...(await countFindings()), ...(await entries.end()));
  return { documents, findings };

  function pageAfter(name: Buffer): Promise<readonly Row[]> {
    return queryable.query(ROWS_BY_NAME, [project, name]);
  }

  function checked(row: Row, name: string, lastSeq: number): CheckedRow {
    try {
      const state = readStateRow(row, rows);
      if (cipher.fileName(state) !== name) return { state, problem: 'the row is of another document' };
      if (state.seq > lastSeq) return { state, problem: 'is later than the last commit' };
      if (state.deletedMs !== 0) return { state };
      const opened = openOwnDocument(cipher, name, row.at(-1) as Buffer);
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

  /** Whether what is counted with each commit is what there is. */
  async function countFindings(): Promise<Finding[]> {
    const wrong: Finding[] = [];
    for (const row of await queryable.query(COLLECTIONS, [project])) {
      const [token, version, sealed, counted, bytes] = row as unknown as [
        Buffer,
        number,
        Buffer,
        number,
        number,
      ];
      const part = `collection ${token.toString('hex')}`;
      try {
        const name = rows.openCollectionName(token, version, sealed);
        const found = byCollection.get(name) ?? { documents: 0, bytes: 0 };
        byCollection.delete(name);
        if (found.documents !== counted || found.bytes !== bytes)
          wrong.push({ part, problem: 'is counted wrongly' });
      } catch (error) {
        if (!(error instanceof OpenError || error instanceof VersionUnknown)) throw error;
        wrong.push({ part, problem: 'its name does not open' });
      }
    }
    if (byCollection.size > 0) wrong.push({ part: 'collections', problem: 'a row is missing' });
    for (const row of await queryable.query(VERSIONS, [project])) {
      const [version, counted, seals] = row as unknown as [number, number, Buffer | null];
      const part = `key version ${version}`;
      if ((byVersion.get(version) ?? 0) !== counted)
        wrong.push({ part, problem: 'its documents are counted wrongly' });
      if (cipher.hasVersion(version) && orUndefined(() => rows.openCount(version, seals)) === undefined)
        wrong.push({ part, problem: 'the count of its seals does not open' });
    }
    return wrong;
  }
}
