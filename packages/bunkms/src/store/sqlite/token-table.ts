import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Page, PageQuery } from '../port.ts';
import type { Connection, Row } from './connection.ts';
import { takePage } from './page.ts';

/** Inside a write transaction. */
export function insertToken(connection: Connection, token: TokenInfo): void {
  connection.run(
    `INSERT INTO tokens (jti, family, sub, typ, aud, scope, keys, projects, issued_at, expires_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    token.jti,
    token.family,
    token.sub,
    token.typ,
    token.aud,
    JSON.stringify(token.scope),
    JSON.stringify(token.keys),
    JSON.stringify(token.projects),
    token.issued_at,
    token.expires_at,
  );
}

export function findToken(connection: Connection, jti: string): TokenInfo | undefined {
  const row = connection.row('SELECT * FROM tokens WHERE jti = ?', jti);
  return row && tokenOf(row);
}

export function listTokens(connection: Connection, page: PageQuery<string>): Page<TokenInfo> {
  const rows =
    page.after === undefined
      ? connection.rows('SELECT * FROM tokens ORDER BY number LIMIT ?', page.limit + 1)
      : connection.rows(
          `SELECT * FROM tokens WHERE number > (SELECT number FROM tokens WHERE jti = ?) ORDER BY number LIMIT ?`,
          page.after,
          page.limit + 1,
        );
  return takePage(rows, page.limit, tokenOf);
}

/** Inside a write transaction. */
export function revokeFamily(connection: Connection, family: string, revokedAt: string): void {
  connection.run(
    'UPDATE tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL',
    revokedAt,
    family,
  );
}

function tokenOf(row: Row): TokenInfo {
  const list = (column: string) => JSON.parse(row[column] as string) as string[];
  return {
    jti: row['jti'] as string,
    family: row['family'] as string,
    sub: row['sub'] as string,
    typ: row['typ'] as TokenInfo['typ'],
    aud: row['aud'] as TokenInfo['aud'],
    scope: list('scope'),
    keys: list('keys'),
    projects: list('projects'),
    issued_at: row['issued_at'] as string,
    expires_at: row['expires_at'] as string,
    ...(row['revoked_at'] === null ? {} : { revoked_at: row['revoked_at'] as string }),
  };
}
