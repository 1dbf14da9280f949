import { AppError } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { StoreMetadata } from '../../port/port.ts';
import type { IdempotencyRecord } from '../../port/state.ts';
import type { Row, Statement, Transaction } from '../database/database.ts';
import { RowCipher } from './row-cipher.ts';
import { ROW_COLUMNS, SEALED } from './rows.ts';
import { SEALED_COUNT } from './seal-counter.ts';

/** A page of rows, documents and tombstones, by name. */
export const ROWS_BY_NAME: Statement = {
  name: 'bundoc-rows-by-name-2',
  text: `
SELECT ${ROW_COLUMNS}, ${SEALED} FROM (
  SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running FROM (
    SELECT * FROM bundoc.documents WHERE project = $1 AND name > $2 ORDER BY name LIMIT 500
  ) AS d WINDOW w AS (ORDER BY name)
) AS d WHERE place = 1 OR running IS NULL OR running <= 4194304 ORDER BY name`,
};
/**
 * The position of the latest commit, the position up to which tombstones are purged, and the number of
 * documents and tombstones. No row without a project.
 */
export const EXTENT: Statement = {
  name: 'bundoc-extent-1',
  text: `SELECT seq, purged_seq, (SELECT count(*) FROM bundoc.documents WHERE project = $1) FROM bundoc.heads WHERE project = $1`,
};
const COUNTS: Statement = {
  name: 'bundoc-counts-1',
  text: `SELECT coalesce(sum(documents), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM bundoc.collections WHERE project = $1`,
};
const SEALS: Statement = {
  name: 'bundoc-rest-seals-2',
  text: `SELECT version, ${SEALED_COUNT} FROM bundoc.key_versions WHERE project = $1 ORDER BY version`,
};
const USED_KEYS: Statement = {
  name: 'bundoc-rest-used-keys-1',
  text: 'SELECT token, at_ms, key_version, answer FROM bundoc.used_keys WHERE project = $1 ORDER BY at_ms',
};

/**
 * The part of a project besides documents and deletions, as a transaction sees it. The transaction must hold
 * the project's lock.
 * @throws AppError `integrity_error`; VersionUnknown.
 */
export async function readStoreMetadata(
  transaction: Transaction,
  project: string,
  cipher: ProjectCipher,
): Promise<StoreMetadata> {
  const rows = new RowCipher(project, cipher);
  const [extent] = await transaction.query(EXTENT, [project]);
  const [lastSeq, purgedSeq, size] = extent as unknown as [number, number, number];
  const counts = await countsOfRows(transaction, project);
  const seals = (await transaction.query(SEALS, [project])) as unknown as [number, Buffer | null][];
  const idempotencyRecords = await transaction.query(USED_KEYS, [project]);
  try {
    return {
      ...{ lastSeq, purgedSeq, size, ...counts },
      seals: seals
        .filter(([version]) => cipher.hasVersion(version))
        .map(([version, sealed]) => ({ version, count: rows.openCount(version, sealed) })),
      idempotencyRecords: idempotencyRecords.map((row) => idempotencyRecordOf(row, rows)),
    };
  } catch (error) {
    if (error instanceof OpenError) throw new AppError('integrity_error', { cause: error });
    throw error;
  }
}

/** The counted living documents and their sealed bytes. */
export async function countsOfRows(
  transaction: Transaction,
  project: string,
): Promise<Pick<StoreMetadata, 'documents' | 'bytes'>> {
  const [row] = await transaction.query(COUNTS, [project]);
  const [documents, bytes] = row as unknown as [number, number];
  return { documents, bytes };
}

function idempotencyRecordOf(row: Row, rows: RowCipher): IdempotencyRecord {
  const [token, atMs, version, answer] = row as unknown as [Buffer, number, number, Buffer];
  return { atMs, ...rows.openIdempotencyRecord(token, version, answer) };
}
