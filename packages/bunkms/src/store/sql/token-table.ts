import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { REVOCATION, type StoredToken, TOKEN_ACTIONS } from '../../records/token-record.ts';
import type { Page, PageQuery } from '../page.ts';
import type { IssuePlace, RevocationPlace } from '../tokens.ts';
import type { Dialect } from './dialect.ts';
import { pageOf } from './page-of.ts';
import { auditRecordOf, TOKEN_COLUMNS, tokenOf, tokenValuesOf } from './row-records.ts';
import { type EachQuery, each, firstOfEach, rows, run, runOne, type Sql } from './statement.ts';

/** Exactly the conditions of the indexes: otherwise the indexes are not used. */
const ISSUES = `action IN (${TOKEN_ACTIONS.map((action) => `'${action}'`).join(', ')})`;
const REVOKES = `action = '${REVOCATION}'`;

const PLACEHOLDERS = TOKEN_COLUMNS.split(', ')
  .map((_, at) => `$${at + 1}`)
  .join(', ');

/** The table of tokens, and their records in the audit chain. */
export class TokenTable {
  readonly #dialect: Dialect;
  readonly #rows: EachQuery;
  readonly #issues: EachQuery;
  readonly #revocations: EachQuery;
  readonly #issuesOfActive: EachQuery;
  readonly #issuesBy: Readonly<Record<'family' | 'issuer', EachQuery>>;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
    const { forEach, detailMember, indexedBy, newerThan, oldestFirst } = dialect;
    const member = (name: string, of: string) => `${ISSUES} AND ${detailMember(name, 'i')} = ${of}`;
    const issue = (jti: string) =>
      `SELECT i.* FROM audit AS i ${indexedBy('audit_tokens')} WHERE i.${member('token', jti)} ORDER BY i.seq LIMIT 1`;
    const revocation = (family: string) =>
      `SELECT r.* FROM ${this.#revocationsOf(family)} ORDER BY r.seq LIMIT 1`;
    this.#rows = forEach(['text'], (jti) => `SELECT * FROM tokens WHERE jti = ${jti}`);
    this.#issues = forEach(['text'], (jti) => issue(jti));
    this.#revocations = forEach(['text'], (family) => revocation(family));
    this.#issuesOfActive = forEach(
      ['text'],
      (jti) => `SELECT i.* FROM (SELECT jti FROM tokens WHERE jti = ${jti}) AS t
        JOIN (${issue(jti)}) AS i ON true
        WHERE NOT EXISTS (${revocation(detailMember('family', 'i'))})`,
    );
    const issuesBy = (name: 'family' | 'issuer', index: string) =>
      forEach(
        ['text', 'bigint'],
        (of, after) => `SELECT i.* FROM audit AS i ${indexedBy(index)}
          WHERE i.${member(name, of)} AND ${newerThan('i.seq', after)} ORDER BY ${oldestFirst('i.seq')} LIMIT $3`,
      );
    this.#issuesBy = {
      family: issuesBy('family', 'audit_token_families'),
      issuer: issuesBy('issuer', 'audit_token_issuers'),
    };
  }

  /** Inside a write. */
  *insert(token: TokenInfo): Sql<void> {
    yield* runOne(`INSERT INTO tokens (${TOKEN_COLUMNS}) VALUES (${PLACEHOLDERS})`, ...tokenValuesOf(token));
  }

  /** Consistent only inside a snapshot. */
  *find(jtis: readonly string[]): Sql<StoredToken[]> {
    const found = yield* firstOfEach(this.#rows, jtis);
    const stored = yield* this.#stored(
      jtis.map((jti) => {
        const row = found.get(jti);
        return { jti, row: row && tokenOf(row) };
      }),
    );
    return stored.filter(({ row, issued }) => row !== undefined || issued !== undefined);
  }

  /** The records of issue, by token, of those tokens that have a row and whose family is not revoked. */
  *issuesOfActive(jtis: readonly string[]): Sql<Map<string, AuditRecord>> {
    const found = yield* firstOfEach(this.#issuesOfActive, jtis);
    return new Map([...found].map(([jti, issue]) => [jti, auditRecordOf(issue)]));
  }

  /** Consistent only inside a snapshot. */
  *list(page: PageQuery<string>): Sql<Page<StoredToken>> {
    const found = yield* rows(
      `SELECT * FROM tokens
        WHERE number > CASE WHEN CAST($1 AS text) IS NULL THEN 0 ELSE (SELECT number FROM tokens WHERE jti = $1) END
        ORDER BY number LIMIT $2`,
      page.after ?? null,
      page.limit + 1,
    );
    const { items, more } = pageOf(found, page.limit, tokenOf);
    return { items: yield* this.#stored(items.map((token) => ({ jti: token.jti, row: token }))), more };
  }

  /** Adds the chain's records to these tokens. */
  *#stored(tokens: readonly Pick<StoredToken, 'jti' | 'row'>[]): Sql<StoredToken[]> {
    const issues = yield* firstOfEach(
      this.#issues,
      tokens.map(({ jti }) => jti),
    );
    const withIssue = tokens.map((token) => {
      const found = issues.get(token.jti);
      const issued = found && auditRecordOf(found);
      return { ...token, issued, family: String(issued?.detail?.['family'] ?? token.row?.family) };
    });
    const revocations = yield* firstOfEach(
      this.#revocations,
      withIssue.map(({ family }) => family),
    );
    return withIssue.map(({ family, ...token }) => {
      const revoked = revocations.get(family);
      return { ...token, revoked: revoked && auditRecordOf(revoked) };
    });
  }

  /** Tokens after that number, in the order of their issue, each with its number. */
  *after(after: number, limit: number): Sql<{ readonly number: number; readonly token: TokenInfo }[]> {
    const found = yield* rows(
      'SELECT * FROM tokens WHERE number > $1 ORDER BY number LIMIT $2',
      after,
      limit,
    );
    return found.map((one) => ({ number: one['number'] as number, token: tokenOf(one) }));
  }

  /** The records that revoke a family, genuine or not. */
  *revocationsOf(family: string): Sql<AuditRecord[]> {
    const sql = `SELECT r.* FROM ${this.#revocationsOf('$1')} ORDER BY r.seq`;
    return (yield* rows(sql, family)).map(auditRecordOf);
  }

  #revocationsOf(family: string): string {
    const { indexedBy, detailMember } = this.#dialect;
    return `audit AS r ${indexedBy('audit_revocations')} WHERE r.${REVOKES} AND ${detailMember('family', 'r')} = ${family}`;
  }

  /** Inside a write: marks the rows of a family. */
  *markRevoked(family: string, revokedAt: string): Sql<void> {
    yield* run(
      'UPDATE tokens SET revoked_at = $1 WHERE family = $2 AND revoked_at IS NULL',
      revokedAt,
      family,
    );
  }

  /** Records of issue for each place, in the order of `seq`. */
  *listIssues(by: 'family' | 'issuer', places: readonly IssuePlace[], limit: number): Sql<AuditRecord[][]> {
    const found = yield* each(
      this.#issuesBy[by],
      places.map(({ of, after }) => [of, after]),
      limit,
    );
    return places.map((_, at) => (found[at] ?? []).map(auditRecordOf));
  }

  *listRevoked(time: string, page: PageQuery<RevocationPlace>): Sql<Page<AuditRecord>> {
    const { indexedBy, detailMember } = this.#dialect;
    const end = detailMember('expires_at', 'r');
    const found = yield* rows(
      `SELECT r.* FROM audit AS r ${indexedBy('audit_revocations_by_end')}
        WHERE r.${REVOKES} AND ${end} >= $1 AND (${end}, r.seq) > ($2, CAST($3 AS bigint)) ORDER BY ${end}, r.seq LIMIT $4`,
      time,
      page.after?.expiresAt ?? '',
      page.after?.seq ?? 0,
      page.limit + 1,
    );
    return pageOf(found, page.limit, auditRecordOf);
  }

  /** Inside a write. */
  *prune(time: string, limit: number): Sql<number> {
    return yield* run(
      `DELETE FROM tokens WHERE number IN (
         SELECT number FROM tokens AS old WHERE expires_at < $1
           AND NOT EXISTS (SELECT 1 FROM tokens WHERE family = old.family AND expires_at >= $1)
           LIMIT $2)`,
      time,
      limit,
    );
  }
}
