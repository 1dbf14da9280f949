import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Page, PageQuery } from '../port.ts';
import { tokenOf } from '../row-records.ts';
import { pageOf } from './page.ts';
import type { Session } from './session.ts';

/** Inside a write. */
export async function insertToken(session: Session, token: TokenInfo): Promise<void> {
  await session.run(
    `INSERT INTO tokens (jti, family, sub, typ, aud, scope, keys, projects, issued_at, expires_at, revoked_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
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

export async function findToken(session: Session, jti: string): Promise<TokenInfo | undefined> {
  const row = await session.row('SELECT * FROM tokens WHERE jti = $1', jti);
  return row && tokenOf(row);
}

/** The families of those of the tokens that are known and not revoked. */
export async function liveFamilies(session: Session, jtis: readonly string[]): Promise<Map<string, string>> {
  if (jtis.length === 0) return new Map();
  const rows = await session.rows(
    'SELECT jti, family FROM tokens WHERE jti = ANY($1::text[]) AND revoked_at IS NULL',
    jtis,
  );
  return new Map(rows.map((row) => [row['jti'] as string, row['family'] as string]));
}

export async function listTokens(session: Session, page: PageQuery<string>): Promise<Page<TokenInfo>> {
  const rows = await session.rows(
    `SELECT * FROM tokens
      WHERE number > CASE WHEN $1::text IS NULL THEN 0 ELSE (SELECT number FROM tokens WHERE jti = $1) END
      ORDER BY number LIMIT $2`,
    page.after ?? null,
    page.limit + 1,
  );
  return pageOf(rows, page.limit, tokenOf);
}

/** Tokens behind that number, in the order of their issue, each with its own. */
export async function tokensAfter(
  session: Session,
  after: number,
  limit: number,
): Promise<{ number: number; token: TokenInfo }[]> {
  const rows = await session.rows(
    'SELECT * FROM tokens WHERE number > $1 ORDER BY number LIMIT $2',
    after,
    limit,
  );
  return rows.map((row) => ({ number: row['number'] as number, token: tokenOf(row) }));
}

/** Inside a write. */
export async function revokeFamily(session: Session, family: string, revokedAt: string): Promise<void> {
  await session.run(
    'UPDATE tokens SET revoked_at = $1 WHERE family = $2 AND revoked_at IS NULL',
    revokedAt,
    family,
  );
}

export async function listRevoked(
  session: Session,
  time: string,
  page: PageQuery<string>,
): Promise<Page<TokenInfo>> {
  const rows = await session.rows(
    `SELECT * FROM tokens WHERE revoked_at IS NOT NULL AND expires_at >= $1
        AND number > CASE WHEN $2::text IS NULL THEN 0 ELSE (SELECT number FROM tokens WHERE jti = $2) END
      ORDER BY number LIMIT $3`,
    time,
    page.after ?? null,
    page.limit + 1,
  );
  return pageOf(rows, page.limit, tokenOf);
}

/** Inside a write. */
export function pruneTokens(session: Session, time: string, limit: number): Promise<number> {
  return session.run(
    `DELETE FROM tokens WHERE number IN (
       SELECT number FROM tokens AS old WHERE expires_at < $1
         AND NOT EXISTS (SELECT 1 FROM tokens WHERE family = old.family AND expires_at >= $1)
         LIMIT $2)`,
    time,
    limit,
  );
}
