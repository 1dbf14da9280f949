import type { KeyDetail, KeyInfo } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { globMatches } from '@bundoc/shared/grants';
import type { KeyRecord, NewKeyVersion, Page, PageQuery } from '../port.ts';
import type { Connection, Row } from './connection.ts';
import { takePage } from './page.ts';

/**
 * A key and one of its versions, of the same moment since it is one statement. The left join keeps a key whose version has
 * lost its record: such a key is damaged, and its name is taken nevertheless.
 */
const CURRENT = `
  SELECT k.id, k.name, k.type, k.state, k.version, k.created_at, v.kcv, v.wrapped
    FROM keys k LEFT JOIN key_versions v ON v.key_id = k.id AND v.version = k.version`;
const ASKED = `
  SELECT k.id, k.name, k.type, k.state, asked.version, k.created_at, v.kcv, v.wrapped
    FROM keys k JOIN (SELECT ? AS version) asked ON asked.version BETWEEN 1 AND k.version
      LEFT JOIN key_versions v ON v.key_id = k.id AND v.version = asked.version
   WHERE k.name = ?`;
const ALL = `
  SELECT k.id, k.name, k.type, k.state, k.version, k.created_at, v.kcv,
      v.version AS one_version, v.created_at AS one_created_at
    FROM keys k LEFT JOIN key_versions v ON v.key_id = k.id
   WHERE k.name = ? ORDER BY v.version`;

/** Inside a write transaction. @throws AppError `KEY_EXISTS`. */
export function insertKey(connection: Connection, { info, wrapped }: KeyRecord): void {
  if (connection.row('SELECT 1 FROM keys WHERE name = ?', info.name) !== undefined)
    throw new AppError('KEY_EXISTS');
  connection.run(
    'INSERT INTO keys (id, name, type, state, version, created_at) VALUES (?, ?, ?, ?, ?, ?)',
    info.id,
    info.name,
    info.type,
    info.state,
    info.version,
    info.created_at,
  );
  const { id: keyId, version, kcv, created_at: createdAt } = info;
  insertVersion(connection, { keyId, version, kcv, wrapped, createdAt });
}

/** Inside a write transaction. @returns false, with nothing written, when the current version is not the one before. */
export function addKeyVersion(connection: Connection, added: NewKeyVersion): boolean {
  const row = connection.row('SELECT version FROM keys WHERE id = ?', added.keyId);
  if (row?.['version'] !== added.version - 1) return false;
  insertVersion(connection, added);
  connection.run('UPDATE keys SET version = ? WHERE id = ?', added.version, added.keyId);
  return true;
}

export function findKey(connection: Connection, name: string, version?: number): KeyRecord | undefined {
  const row =
    version === undefined
      ? connection.row(`${CURRENT} WHERE k.name = ?`, name)
      : connection.row(ASKED, version, name);
  return row && { info: infoOf(row), wrapped: (row['wrapped'] as Uint8Array | null) ?? new Uint8Array() };
}

export function describeKey(connection: Connection, name: string): KeyDetail | undefined {
  const rows = [...connection.rows(ALL, name)];
  const [first] = rows;
  if (first === undefined) return undefined;
  const current = rows.find((row) => row['one_version'] === row['version']);
  const versions = rows.filter((row) => row['one_version'] !== null);
  return {
    ...infoOf({ ...first, kcv: current?.['kcv'] ?? null }),
    versions: versions.map((row) => ({
      version: row['one_version'] as number,
      kcv: row['kcv'] as string,
      created_at: row['one_created_at'] as string,
    })),
  };
}

export function listKeys(
  connection: Connection,
  globs: readonly string[],
  page: PageQuery<string>,
): Page<KeyInfo> {
  const rows = connection.rows(`${CURRENT} WHERE k.name > ? ORDER BY k.name`, page.after ?? '');
  return takePage(rows, page.limit, infoOf, (row) =>
    globs.some((glob) => globMatches(glob, row['name'] as string)),
  );
}

function insertVersion(connection: Connection, added: NewKeyVersion): void {
  connection.run(
    'INSERT INTO key_versions (key_id, version, kcv, wrapped, created_at) VALUES (?, ?, ?, ?, ?)',
    added.keyId,
    added.version,
    added.kcv,
    added.wrapped,
    added.createdAt,
  );
}

function infoOf(row: Row): KeyInfo {
  return {
    id: row['id'] as string,
    name: row['name'] as string,
    type: row['type'] as KeyInfo['type'],
    state: row['state'] as KeyInfo['state'],
    version: row['version'] as number,
    kcv: (row['kcv'] as string | null) ?? '',
    created_at: row['created_at'] as string,
  };
}
