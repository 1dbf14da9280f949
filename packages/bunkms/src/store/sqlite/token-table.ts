import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { REVOCATION, type StoredToken, TOKEN_ACTIONS } from '../../records/token-record.ts';
import type { IssuePlace, Page, PageQuery, RevocationPlace } from '../port.ts';
import { auditRecordOf, TOKEN_COLUMNS, tokenOf, tokenValuesOf } from '../row-records.ts';
import type { Connection } from './connection.ts';
import { takePage } from './page.ts';

/** Word for word as in the indexes: only so SQLite uses them. */
const ISSUES = `action IN (${TOKEN_ACTIONS.map((action) => `'${action}'`).join(', ')})`;
const REVOKES = `action = '${REVOCATION}'`;
const member = (name: string, table: string) =>
  `(CASE WHEN json_valid(${table}.detail) THEN json_extract(${table}.detail, '$.${name}') END)`;

const PLACEHOLDERS = TOKEN_COLUMNS.replace(/\w+/g, '?');

/** Inside a write transaction. */
export function insertToken(connection: Connection, token: TokenInfo): void {
  connection.run(`INSERT INTO tokens (${TOKEN_COLUMNS}) VALUES (${PLACEHOLDERS})`, ...tokenValuesOf(token));
}

/** All tokens in the order of their issue. */
export function* allTokens(connection: Connection): Generator<TokenInfo, void, undefined> {
  for (const row of connection.rows('SELECT * FROM tokens ORDER BY number')) yield tokenOf(row);
}

/** Inside a read. */
export function findToken(connection: Connection, jti: string): StoredToken | undefined {
  const row = connection.row('SELECT * FROM tokens WHERE jti = ?', jti);
  const stored = storedToken(connection, jti, row && tokenOf(row));
  return stored.row === undefined && stored.issued === undefined ? undefined : stored;
}

/** The record of the issue of a token that has a row and whose family no record revokes. */
export function issueOfLive(connection: Connection, jti: string): AuditRecord | undefined {
  const row = connection.row(
    `SELECT i.* FROM tokens AS t JOIN audit AS i INDEXED BY audit_tokens
        ON i.${ISSUES} AND ${member('token', 'i')} = t.jti
      WHERE t.jti = ? AND NOT EXISTS (
        SELECT 1 FROM audit AS r INDEXED BY audit_revocations
          WHERE r.${REVOKES} AND ${member('family', 'r')} = ${member('family', 'i')})
      ORDER BY i.seq LIMIT 1`,
    jti,
  );
  return row && auditRecordOf(row);
}

/** Inside a read. */
export function listTokens(connection: Connection, page: PageQuery<string>): Page<StoredToken> {
  const rows =
    page.after === undefined
      ? connection.rows('SELECT * FROM tokens ORDER BY number LIMIT ?', page.limit + 1)
      : connection.rows(
          `SELECT * FROM tokens WHERE number > (SELECT number FROM tokens WHERE jti = ?) ORDER BY number LIMIT ?`,
          page.after,
          page.limit + 1,
        );
  const { items, more } = takePage(rows, page.limit, tokenOf);
  return { items: items.map((row) => storedToken(connection, row.jti, row)), more };
}

function storedToken(connection: Connection, jti: string, row: TokenInfo | undefined): StoredToken {
  const issue = connection.row(
    `SELECT * FROM audit AS i INDEXED BY audit_tokens WHERE i.${ISSUES} AND ${member('token', 'i')} = ? ORDER BY seq LIMIT 1`,
    jti,
  );
  const issued = issue && auditRecordOf(issue);
  const family = issued?.detail?.['family'] ?? row?.family;
  return { jti, row, issued, revoked: firstRevocation(connection, String(family)) };
}

function firstRevocation(connection: Connection, family: string): AuditRecord | undefined {
  for (const record of revocations(connection, family)) return record;
  return undefined;
}

/** The records that revoke a family, genuine or not, the first one first. */
export function* revocations(
  connection: Connection,
  family: string,
): Generator<AuditRecord, void, undefined> {
  const rows = connection.rows(
    `SELECT * FROM audit AS r INDEXED BY audit_revocations WHERE r.${REVOKES} AND ${member('family', 'r')} = ? ORDER BY seq`,
    family,
  );
  for (const row of rows) yield auditRecordOf(row);
}

/** Inside a write transaction: marks the rows of a family. */
export function markRevoked(connection: Connection, family: string, revokedAt: string): void {
  connection.run(
    'UPDATE tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL',
    revokedAt,
    family,
  );
}

const ISSUES_OF = {
  family: `INDEXED BY audit_token_families WHERE i.${ISSUES} AND ${member('family', 'i')} = ?`,
  issuer: `INDEXED BY audit_token_issuers WHERE i.${ISSUES} AND ${member('issuer', 'i')} = ?`,
} as const;

export function listIssues(
  connection: Connection,
  by: keyof typeof ISSUES_OF,
  places: readonly IssuePlace[],
  limit: number,
): AuditRecord[][] {
  const sql = `SELECT * FROM audit AS i ${ISSUES_OF[by]} AND i.seq > ? ORDER BY i.seq LIMIT ?`;
  return places.map(({ of, after }) => [...connection.rows(sql, of, after, limit)].map(auditRecordOf));
}

export function listRevoked(
  connection: Connection,
  time: string,
  page: PageQuery<RevocationPlace>,
): Page<AuditRecord> {
  const end = member('expires_at', 'r');
  const rows = connection.rows(
    `SELECT * FROM audit AS r INDEXED BY audit_revocations_by_end
      WHERE r.${REVOKES} AND ${end} >= ?1 AND (${end}, r.seq) > (?2, ?3) ORDER BY ${end}, r.seq LIMIT ?4`,
    time,
    page.after?.expiresAt ?? '',
    page.after?.seq ?? 0,
    page.limit + 1,
  );
  return takePage(rows, page.limit, auditRecordOf);
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
