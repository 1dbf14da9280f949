import type { KeyInfo } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { globMatches } from '@bundoc/shared/grants';
import type { KeyRecord, Page, PageQuery } from '../port.ts';
import type { Connection, Row } from './connection.ts';
import { takePage } from './page.ts';

/** Inside a write transaction. @throws AppError `KEY_EXISTS`. */
export function insertKey(connection: Connection, { info, wrapped }: KeyRecord): void {
  if (findKey(connection, info.name) !== undefined) throw new AppError('KEY_EXISTS');
  connection.run(
    'INSERT INTO keys (id, name, type, state, version, kcv, wrapped, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    info.id,
    info.name,
    info.type,
    info.state,
    info.version,
    info.kcv,
    wrapped,
    info.created_at,
  );
}

export function findKey(connection: Connection, name: string): KeyRecord | undefined {
  const row = connection.row('SELECT * FROM keys WHERE name = ?', name);
  return row && { info: infoOf(row), wrapped: row['wrapped'] as Uint8Array };
}

export function listKeys(
  connection: Connection,
  globs: readonly string[],
  page: PageQuery<string>,
): Page<KeyInfo> {
  const rows = connection.rows('SELECT * FROM keys WHERE name > ? ORDER BY name', page.after ?? '');
  return takePage(rows, page.limit, infoOf, (row) =>
    globs.some((glob) => globMatches(glob, row['name'] as string)),
  );
}

function infoOf(row: Row): KeyInfo {
  return {
    id: row['id'] as string,
    name: row['name'] as string,
    type: row['type'] as KeyInfo['type'],
    state: row['state'] as KeyInfo['state'],
    version: row['version'] as number,
    kcv: row['kcv'] as string,
    created_at: row['created_at'] as string,
  };
}
