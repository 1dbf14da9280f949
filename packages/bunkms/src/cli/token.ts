import type { Environment } from '@bundoc/shared/config';
import { issueTokenSchema, type TokenInfo } from '@bundoc/shared/contract/tokens';
import { CLI_CALLER } from '../audit/caller.ts';
import { UsageError } from './errors.ts';
import { withKms, withStore } from './open-kms.ts';

export interface IssueOptions {
  readonly typ: string;
  readonly sub: string;
  readonly scope: string;
  readonly keys: readonly string[];
  readonly project: readonly string[];
  readonly projects: readonly string[];
  /** Seconds. */
  readonly ttl?: number;
  readonly json?: true;
}

/** Prints a new token, and nothing else, so that it can be captured. */
export async function issueToken(environment: Environment, options: IssueOptions): Promise<void> {
  const request = issueTokenSchema.safeParse({
    sub: options.sub,
    typ: options.typ,
    scope: options.scope.split(/[\s,]+/).filter((word) => word !== ''),
    keys: options.keys,
    projects: [...options.project, ...options.projects],
    ttl_s: options.ttl,
  });
  if (!request.success)
    throw new UsageError(
      request.error.issues.map((issue) => `--${issue.path.join('.')}: ${issue.message}`).join('; '),
    );
  const issued = await withKms(environment, ({ tokens }) => tokens.issue(request.data, CLI_CALLER));
  console.log(options.json ? JSON.stringify(issued) : issued.token);
}

const PAGE = 500;

export async function listTokens(environment: Environment, options: { json?: true }): Promise<void> {
  const tokens = await withStore(environment, async (store) => {
    const all: TokenInfo[] = [];
    for (let after: string | undefined, more = true; more; after = all.at(-1)?.jti) {
      const page = await store.listTokens({ after, limit: PAGE });
      all.push(...page.items);
      more = page.more;
    }
    return all;
  });
  if (options.json) {
    console.log(JSON.stringify({ tokens }));
    return;
  }
  for (const token of tokens)
    console.log(
      [token.jti, stateOf(token), token.typ, token.sub, token.scope.join(','), token.expires_at].join('  '),
    );
}

/** Revokes the token and every token of its family; a running server refuses them from its next request on. */
export async function revokeToken(
  environment: Environment,
  jti: string,
  options: { json?: true },
): Promise<void> {
  await withKms(environment, ({ tokens }) => tokens.revoke(jti, CLI_CALLER));
  if (options.json) console.log(JSON.stringify({ jti, revoked: true }));
}

function stateOf(token: TokenInfo): 'revoked' | 'expired' | 'valid' {
  if (token.revoked_at !== undefined) return 'revoked';
  return Date.parse(token.expires_at) <= Date.now() ? 'expired' : 'valid';
}
