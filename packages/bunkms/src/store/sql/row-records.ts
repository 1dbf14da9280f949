import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { MayIssue, TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../../records/chain.ts';
import type { KeyOutside, KeyRecord, KeyVersionRecord } from '../../records/key-record.ts';

/** A row by column names. Both databases return the same values, except booleans. */
export type Row = Readonly<Record<string, unknown>>;

/**
 * Converts any row to a record without validation: a record that contradicts the audit chain counts as
 * damaged.
 */
export function keyRecordOf(row: Row): KeyRecord {
  const key = row['idempotency_key'] as string | null;
  const request = row['idempotency_request'] as string | null;
  const kekIds = row['kek_ids'] as string;
  const to = row['offered_to'] as string | null;
  const move = row['move'] as string | null;
  const generation = row['offer_generation'] as string | null;
  return {
    id: row['id'] as string,
    name: row['name'] as string,
    type: row['type'] as KeyRecord['type'],
    state: row['state'] as KeyRecord['state'],
    version: row['version'] as number,
    revision: row['revision'] as number,
    exportable: row['exportable'] === true || row['exportable'] === 1,
    rotateAfterDays: row['rotate_after_days'] as number | null,
    dueAt: row['due_at'] as string | null,
    createdAt: row['created_at'] as string,
    destroyedAt: row['destroyed_at'] as string | null,
    kekIds: kekIds === '' ? [] : kekIds.split(','),
    idempotency: key === null && request === null ? null : { key: key ?? '', request: request ?? '' },
    versionDigests: row['version_digests'] as Uint8Array,
    holder: row['holder'] as string | null,
    offer:
      to === null && move === null && generation === null
        ? null
        : { to: to ?? '', move: move ?? '', generation: generation ?? '' },
    intendedAt: row['intended_at'] as string | null,
    outside: outsideOf(row['outside'] as string | null),
  };
}

/** The columns of a key except its id, in table order. */
export function keyValuesOf(record: KeyRecord) {
  return [
    record.name,
    record.type,
    record.state,
    record.version,
    record.revision,
    record.exportable,
    record.rotateAfterDays,
    record.dueAt,
    record.createdAt,
    record.destroyedAt,
    record.kekIds.join(','),
    record.idempotency?.key ?? null,
    record.idempotency?.request ?? null,
    record.versionDigests,
    record.holder,
    record.offer?.to ?? null,
    record.offer?.move ?? null,
    record.offer?.generation ?? null,
    record.intendedAt,
    record.outside === null ? null : JSON.stringify(record.outside),
  ] as const;
}

function outsideOf(text: string | null): KeyRecord['outside'] {
  if (text === null) return null;
  const { key = UNREADABLE, identity = '', leaseTtlS = 0 } = readJson<KeyOutside>(text) ?? {};
  return { key, identity, leaseTtlS };
}

/** @param prefix of its columns in a joined row. */
export function keyVersionIn(row: Row, prefix: string): KeyVersionRecord {
  const of = (column: string) => row[`${prefix}${column}`];
  return {
    keyId: of('key_id') as string,
    version: of('version') as number,
    kcv: of('kcv') as string,
    state: of('state') as KeyVersionRecord['state'],
    createdAt: of('created_at') as string,
    destroyedAt: of('destroyed_at') as string | null,
    wrapped: of('wrapped') as Uint8Array,
  };
}

export function keyVersionOf(row: Row): KeyVersionRecord {
  return keyVersionIn(row, '');
}

/** Replaces text that somebody changed to invalid JSON. It matches no digest. */
const UNREADABLE = '(unreadable)';
const NO_LIMIT: MayIssue = { scopes: [], projects: [], keys: [UNREADABLE], ttl_s: 0 };

export function tokenOf(row: Row): TokenInfo {
  const list = (column: string) => readJson<string[]>(row[column] as string) ?? [UNREADABLE];
  const limit = row['may_issue'] as string | null;
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
    ...(row['issuer'] === null ? {} : { issuer: row['issuer'] as string }),
    ...(limit === null ? {} : { may_issue: readJson<MayIssue>(limit) ?? NO_LIMIT }),
    ...(row['revoked_at'] === null ? {} : { revoked_at: row['revoked_at'] as string }),
  };
}

/** The columns of a token, in the order of {@link TOKEN_COLUMNS}. */
export function tokenValuesOf(token: TokenInfo) {
  return [
    token.jti,
    token.family,
    token.issuer ?? null,
    token.sub,
    token.typ,
    token.aud,
    JSON.stringify(token.scope),
    JSON.stringify(token.keys),
    JSON.stringify(token.projects),
    token.may_issue === undefined ? null : JSON.stringify(token.may_issue),
    token.issued_at,
    token.expires_at,
    token.revoked_at ?? null,
  ] as const;
}

export const TOKEN_COLUMNS =
  'jti, family, issuer, sub, typ, aud, scope, keys, projects, may_issue, issued_at, expires_at, revoked_at';

export function auditRecordOf(row: Row): AuditRecord {
  return auditRecordIn(row, '');
}

/** @param prefix of its columns in a joined row. */
export function auditRecordIn(row: Row, prefix: string): AuditRecord {
  const of = (column: string) => row[`${prefix}${column}`];
  const text = (column: string) => of(column) as string;
  const optional = <Name extends string, T>(name: Name): { [N in Name]?: T } =>
    of(name) === null ? {} : ({ [name]: of(name) } as { [N in Name]?: T });
  return {
    seq: of('seq') as number,
    time: text('time'),
    severity: text('severity') as AuditRecord['severity'],
    action: text('action'),
    outcome: text('outcome') as AuditRecord['outcome'],
    ...optional<'actor', string>('actor'),
    ...optional<'jti', string>('jti'),
    ...optional<'key', string>('key'),
    ...optional<'version', number>('version'),
    ...optional<'source', string>('source'),
    ...optional<'request_id', string>('request_id'),
    ...optional<'code', string>('code'),
    ...(of('detail') === null ? {} : { detail: parseDetail(text('detail')) }),
    prev_hash: text('prev_hash'),
    hash: text('hash'),
  };
}

export function detailText(draft: Pick<AuditDraft, 'detail'>): string | null {
  return draft.detail === undefined ? null : JSON.stringify(draft.detail);
}

/**
 * A detail that an attacker changed to invalid JSON must not end the walk that finds it, so it becomes one
 * that matches no hash. So does a detail that is spelt differently from the service's. A look-up by a
 * member's text might miss it, or find the wrong one of two members with the same name.
 */
export function parseDetail(text: string): NonNullable<AuditRecord['detail']> {
  const detail = readJson<NonNullable<AuditRecord['detail']>>(text);
  return detail !== undefined && JSON.stringify(detail) === text ? detail : { unreadable: true };
}

function readJson<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}
