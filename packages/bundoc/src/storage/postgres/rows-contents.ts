import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import type { UsedKey } from '../embedded/record.ts';
import type { ProjectContents } from '../project-contents.ts';
import type { Row, Statement, Transaction } from './database.ts';
import { RowCipher } from './row-cipher.ts';
import { ROW_COLUMNS, readStateRow } from './rows.ts';

/** A page of rows, documents and tombstones, by name. */
export const ROWS_BY_NAME: Statement = {
  name: 'bundoc-rows-by-name-1',
  text: `
SELECT ${ROW_COLUMNS}, sealed FROM (
  SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running FROM (
    SELECT * FROM bundoc.documents WHERE project = $1 AND name > $2 ORDER BY name LIMIT 500
  ) AS d WINDOW w AS (ORDER BY name)
) AS d WHERE place = 1 OR running IS NULL OR running <= 4194304 ORDER BY name`,
};
const HEAD: Statement = {
  name: 'bundoc-contents-head-1',
  text: `SELECT seq, purged_seq, (SELECT count(*) FROM bundoc.documents WHERE project = $1)
         FROM bundoc.heads WHERE project = $1`,
};
const SEALS: Statement = {
  name: 'bundoc-contents-seals-1',
  text: 'SELECT version, seals FROM bundoc.key_versions WHERE project = $1 ORDER BY version',
};
const USED_KEYS: Statement = {
  name: 'bundoc-contents-used-keys-1',
  text: 'SELECT token, at_ms, key_version, answer FROM bundoc.used_keys WHERE project = $1 ORDER BY at_ms',
};

/** What a transaction sees of a project. It must see one moment, or hold the project's lock. @throws OpenError, VersionUnknown. */
export async function contentsOfRows(
  transaction: Transaction,
  project: string,
  cipher: ProjectCipher,
): Promise<ProjectContents> {
  const rows = new RowCipher(project, cipher);
  const [head] = await transaction.query(HEAD, [project]);
  const [lastSeq, purgedSeq, size] = (head ?? [0, 0, 0]) as [number, number, number];
  const seals = (await transaction.query(SEALS, [project])) as unknown as [number, number][];
  const usedKeys = (await transaction.query(USED_KEYS, [project])).map((row) => usedKeyOf(row, rows));
  return {
    lastSeq,
    purgedSeq,
    size,
    usedKeys,
    seals: seals.map(([version, count]) => ({ version, count })),
    async *entries() {
      for (let after = Buffer.alloc(0); ; ) {
        const page = await transaction.query(ROWS_BY_NAME, [project, after]);
        for (const row of page)
          yield { state: readStateRow(row, rows), sealed: (row.at(-1) as Buffer | null) ?? undefined };
        const last = page.at(-1);
        if (last === undefined) return;
        after = last[0] as Buffer<ArrayBuffer>;
      }
    },
  };
}

function usedKeyOf(row: Row, rows: RowCipher): UsedKey {
  const [token, atMs, version, answer] = row as unknown as [Buffer, number, number, Buffer];
  return { atMs, ...rows.openUsedKey(token, version, answer) };
}
