import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Page, PageQuery } from '../port.ts';
import { tokenOf } from '../row-records.ts';
import type { Connection } from './connection.ts';
import { takePage } from './page.ts';

/** Inside a write transaction. */
export function insertToken(connection: Connection, token: TokenInfo): void {
  connection.run(
    `INSERT INTO tokens (jti, family, sub, typ, aud, scope, keys, projects, issued_at, expires_at, revoked_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
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
    token.revoked_at ?? null,
  );
}

/** All tokens in the order of their issue. */
export function* allTokens(connection: Connection): Generator<TokenInfo, void, undefined> {
  for (const row of connection.rows('SELECT * FROM tokens ORDER BY number')) yield tokenOf(row);
}

export function findToken(connection: Connection, jti: string): TokenInfo | undefined {
  const row = connection.row('SELECT * FROM tokens WHERE jti = ?', jti);
  return row && tokenOf(row);
}

export function liveFamily(connection: Connection, jti: string): string | undefined {
  const row = connection.row('SELECT family FROM tokens WHERE jti = ? AND revoked_at IS NULL', jti);
  return row?.['family'] as string | undefined;
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

export function listRevoked(connection: Connection, time: string, page: PageQuery<string>): Page<TokenInfo> {
  const rows = connection.rows(
    `SELECT * FROM tokens WHERE revoked_at IS NOT NULL AND expires_at >= ?1
       AND number > CASE WHEN ?2 IS NULL THEN 0 ELSE (SELECT number FROM tokens WHERE jti = ?2) END
       ORDER BY number LIMIT ?3`,
    time,
    page.after ?? null,
    page.limit + 1,
  );
  return takePage(rows, page.limit, tokenOf);
}

/** Inside a write transaction. */
export function pruneTokens(connection: Connection, time: string, limit: number): number {
  return connection.run(
    `DELETE FROM tokens WHERE number IN (
       SELECT number FROM tokens AS old WHERE expires_at < ?1
         AND NOT EXISTS (SELECT 1 FROM tokens WHERE family = old.family AND expires_at >= ?1)
         LIMIT ?2)`,
    time,
    limit,
  );
}
