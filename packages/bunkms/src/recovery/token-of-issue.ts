import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { type TokenInfo, tokenInfoSchema } from '@bundoc/shared/contract/tokens';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { digestOfToken } from '../records/token-record.ts';

/** The token in the record of its issue, as not revoked; undefined for a record of another form. */
export function tokenOfIssue({ detail = {} }: AuditRecord): TokenInfo | undefined {
  const { token: jti, may_issue: limit, record, ...rest } = detail;
  const words = (name: string) =>
    String(detail[name] ?? '')
      .split(' ')
      .filter((word) => word !== '');
  const token = tokenInfoSchema.safeParse({
    ...rest,
    jti,
    scope: words('scope'),
    keys: words('keys'),
    projects: words('projects'),
    ...(limit === undefined ? {} : { may_issue: parseJson(String(limit)) }),
  }).data;
  return token !== undefined && digestOfToken(token) === record ? token : undefined;
}
