import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../../records/chain.ts';
import {
  familyOfIssue,
  isSaidBy,
  REVOCATION,
  type StoredToken,
  TOKEN_ACTIONS,
} from '../../records/token-record.ts';
import type { IssuePlace, Page, PageQuery, RevocationPlace } from '../port.ts';
import {
  auditRecordIn,
  auditRecordOf,
  type Row,
  TOKEN_COLUMNS,
  tokenOf,
  tokenValuesOf,
} from '../row-records.ts';
import { PREFIXED } from './audit-table.ts';
import { pageOf } from './page.ts';
import type { Session } from './session.ts';

/** As the conditions and expressions of the indexes: only so PostgreSQL uses them. */
const ISSUES = `action IN (${TOKEN_ACTIONS.map((action) => `'${action}'`).join(', ')})`;
const REVOKES = `action = '${REVOCATION}'`;
const member = (name: string, table: string) => `substring(${table}.detail from '"${name}":"([^"]*)"')`;

const PLACEHOLDERS = TOKEN_COLUMNS.split(', ')
  .map((_, at) => `$${at + 1}`)
  .join(', ');

/** The first record of the issue of a token, and that of the revocation of a family. */
const ISSUE_OF = (jti: string) =>
  `SELECT i.* FROM audit AS i WHERE i.${ISSUES} AND ${member('token', 'i')} = ${jti} ORDER BY i.seq LIMIT 1`;
const REVOCATION_OF = (family: string) =>
  `SELECT r.* FROM audit AS r WHERE r.${REVOKES} AND ${member('family', 'r')} = ${family} ORDER BY r.seq LIMIT 1`;

/** Inside a write. */
export async function insertToken(session: Session, token: TokenInfo): Promise<void> {
  await session.run(
    `INSERT INTO tokens (${TOKEN_COLUMNS}) VALUES (${PLACEHOLDERS})`,
    ...tokenValuesOf(token),
  );
}

export async function findToken(session: Session, jti: string): Promise<StoredToken | undefined> {
  const row = await session.row('SELECT * FROM tokens WHERE jti = $1', jti);
  const [stored] = await storedTokens(session, [{ jti, row: row && tokenOf(row) }]);
  return stored?.row === undefined && stored?.issued === undefined ? undefined : stored;
}

/** The families of those of the tokens that are live: they have a row, a genuine record of their issue, and no record revokes the family. */
export async function liveFamilies(
  session: Session,
  jtis: readonly string[],
  chainKey: KeyObject,
): Promise<Map<string, string>> {
  if (jtis.length === 0) return new Map();
  const rows = await session.rows(
    `SELECT ${PREFIXED}, t.jti AS t_jti FROM unnest($1::text[]) AS n (jti) JOIN tokens AS t ON t.jti = n.jti
       CROSS JOIN LATERAL (${ISSUE_OF('t.jti')}) AS a
      WHERE NOT EXISTS (${REVOCATION_OF(member('family', 'a'))})`,
    jtis,
  );
  return new Map(
    rows.flatMap((row) => {
      const jti = row['t_jti'] as string;
      const family = familyOfIssue(chainKey, jti, auditRecordIn(row, 'a_'));
      return family === undefined ? [] : [[jti, family] as const];
    }),
  );
}

export async function listTokens(session: Session, page: PageQuery<string>): Promise<Page<StoredToken>> {
  const rows = await session.rows(
    `SELECT * FROM tokens
      WHERE number > CASE WHEN $1::text IS NULL THEN 0 ELSE (SELECT number FROM tokens WHERE jti = $1) END
      ORDER BY number LIMIT $2`,
    page.after ?? null,
    page.limit + 1,
  );
  const { items, more } = pageOf(rows, page.limit, tokenOf);
  return {
    items: await storedTokens(
      session,
      items.map((row) => ({ jti: row.jti, row })),
    ),
    more,
  };
}

/** Inside a snapshot: what the chain has on these tokens. */
async function storedTokens(
  session: Session,
  tokens: readonly Pick<StoredToken, 'jti' | 'row'>[],
): Promise<StoredToken[]> {
  const records = async (sql: string, of: readonly string[]) => {
    const rows: Row[] = await session.rows(
      `SELECT ${PREFIXED}, n.id AS n_id FROM unnest($1::text[]) AS n (id) CROSS JOIN LATERAL (${sql}) AS a`,
      [...new Set(of)],
    );
    return new Map(rows.map((row) => [row['n_id'] as string, auditRecordIn(row, 'a_')]));
  };
  const issues = await records(
    ISSUE_OF('n.id'),
    tokens.map(({ jti }) => jti),
  );
  const familyOf = ({ jti, row }: Pick<StoredToken, 'jti' | 'row'>) =>
    String(issues.get(jti)?.detail?.['family'] ?? row?.family);
  const revocations = await records(REVOCATION_OF('n.id'), tokens.map(familyOf));
  return tokens.map((token) => ({
    ...token,
    issued: issues.get(token.jti),
    revoked: revocations.get(familyOf(token)),
  }));
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

/** Whether a genuine record says what a revocation of that family would say. */
export async function isRevoked(
  session: Session,
  family: string,
  draft: AuditDraft,
  chainKey: KeyObject,
): Promise<boolean> {
  const rows = await session.rows(
    `SELECT r.* FROM audit AS r WHERE r.${REVOKES} AND ${member('family', 'r')} = $1`,
    family,
  );
  return rows.some((row) => isSaidBy(chainKey, draft, auditRecordOf(row)));
}

/** Inside a write: marks the rows of a family. */
export async function markRevoked(session: Session, family: string, revokedAt: string): Promise<void> {
  await session.run(
    'UPDATE tokens SET revoked_at = $1 WHERE family = $2 AND revoked_at IS NULL',
    revokedAt,
    family,
  );
}

/** Ordered as the indexes are: by `seq` itself PostgreSQL may rather walk the whole chain. */
export async function listIssues(
  session: Session,
  by: 'family' | 'issuer',
  places: readonly IssuePlace[],
  limit: number,
): Promise<AuditRecord[][]> {
  const rows = await session.rows(
    `SELECT ${PREFIXED}, n.at AS n_at
       FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS n (id, after, at) CROSS JOIN LATERAL (
         SELECT i.* FROM audit AS i WHERE i.${ISSUES} AND ${member(by, 'i')} = n.id AND (-i.seq) < -n.after
          ORDER BY (-i.seq) DESC LIMIT $3) AS a
      ORDER BY n.at, a.seq`,
    places.map(({ of }) => of),
    places.map(({ after }) => after),
    limit,
  );
  const found: AuditRecord[][] = places.map(() => []);
  for (const row of rows) found[Number(row['n_at']) - 1]?.push(auditRecordIn(row, 'a_'));
  return found;
}

export async function listRevoked(
  session: Session,
  time: string,
  page: PageQuery<RevocationPlace>,
): Promise<Page<AuditRecord>> {
  const end = member('expires_at', 'r');
  const rows = await session.rows(
    `SELECT r.* FROM audit AS r
      WHERE r.${REVOKES} AND ${end} >= $1 AND (${end}, r.seq) > ($2, $3::bigint) ORDER BY ${end}, r.seq LIMIT $4`,
    time,
    page.after?.expiresAt ?? '',
    page.after?.seq ?? 0,
    page.limit + 1,
  );
  return pageOf(rows, page.limit, auditRecordOf);
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
