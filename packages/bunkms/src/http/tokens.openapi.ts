import { issuedTokenSchema, issueTokenSchema, tokenPageSchema } from '@bundoc/shared/contract/tokens';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { pageQuery } from '../http/query.ts';
import type { JsonRoute } from './route.ts';

const jtiParamsSchema = z.object({ jti: z.uuid() });
const listQuery = z.strictObject(pageQuery(z.uuid()));
const revokeQuery = z.strictObject({
  cascade: z.enum(['true', 'false']).default('false').meta({
    description: 'Whether to also revoke all tokens that the token issued, directly or indirectly',
  }),
});
export const ISSUERS = ['kms:admin', 'kms:issue_client'] as const;
const ADMIN = { kind: 'token', scopes: ['kms:admin'], serviceOnly: true } as const;
const REACH =
  "With a `may_issue` that does not allow everything, the caller reaches only the tokens that its token, or another one of that token's family, has issued, directly or indirectly. It does not reach its own family.";

export const ISSUE = {
  id: 'issueToken',
  tag: 'tokens',
  summary: 'Issue a token',
  description:
    "The token is for the service of its scopes. No other answer shows it. It must be within the caller's `may_issue`. A caller with `kms:issue_client` but without `kms:admin` can issue only client tokens. These expire with the caller's token at the latest: see `expires_at`.",
  access: { kind: 'token', anyScope: ISSUERS, serviceOnly: true },
  body: jsonBody(issueTokenSchema),
  answers: { 201: { description: 'Issued', schema: issuedTokenSchema } },
  refusals: ['rate_limited', 'disk_full'],
  examples: {
    forAnApp: {
      body: { sub: 'app', typ: 'client', scope: ['docs:read', 'docs:write'], projects: ['project-a'] },
      status: 201,
    },
    forAnAdministrator: {
      body: { sub: 'ops', typ: 'client', scope: ['kms:read_key'], keys: ['*'], ttl_s: 600 },
      status: 201,
    },
    forBoth: { body: { sub: 'app', typ: 'client', scope: ['docs:read', 'kms:audit'] }, status: 400 },
  },
} satisfies JsonRoute;

export const RENEWAL = {
  id: 'renewToken',
  tag: 'tokens',
  summary: 'Renew a token: the same rights for another lifetime',
  access: { kind: 'token', serviceOnly: true },
  answers: { 201: { description: 'Renewed', schema: issuedTokenSchema } },
  refusals: ['rate_limited', 'disk_full'],
  examples: { renew: { status: 201 } },
} satisfies JsonRoute;

export const LISTING = {
  id: 'listTokens',
  tag: 'tokens',
  summary: 'List issued tokens, without the tokens themselves',
  description: `${REACH} All tokens are in the order of their issue. Otherwise each token is followed by those that it has issued. A page may be short or empty and still have a \`next_cursor\`.`,
  access: ADMIN,
  query: listQuery,
  answers: { 200: { description: 'A page', schema: tokenPageSchema } },
  refusals: ['rate_limited', 'integrity_error'],
  examples: { firstPage: { query: { limit: '20' }, status: 200 } },
} satisfies JsonRoute;

export const REVOCATION = {
  id: 'revokeToken',
  tag: 'tokens',
  summary: 'Revoke a token and its family',
  description: `${REACH} For any other token the answer is \`token_not_found\`, as for one that does not exist. With \`cascade=true\`, repeat the request after a failure to revoke the rest. \`integrity_error\`: the audit record of a token was changed; all tokens that are found without it are revoked.`,
  access: ADMIN,
  params: jtiParamsSchema,
  query: revokeQuery,
  answers: { 204: { description: 'Revoked' } },
  refusals: ['token_not_found', 'integrity_error', 'disk_full'],
  examples: { unknown: { params: { jti: '0b6f4a0e-6b0c-4b8e-9a53-3c1d2f7e8a90' }, status: 404 } },
} satisfies JsonRoute;
