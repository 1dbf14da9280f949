import { issueTokenSchema, type TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Environment } from '@bundoc/shared/runtime/config';
import { CLI_CALLER } from '../records/caller.ts';
import type { TokenList, TokenService } from '../tokens/token-service.ts';
import { UsageError } from './errors.ts';
import { withKms } from './open-kms.ts';

export interface IssueOptions {
  readonly typ: string;
  readonly sub: string;
  readonly scope: string;
  readonly keys: readonly string[];
  readonly project: readonly string[];
  readonly projects: readonly string[];
  /** Seconds. */
  readonly ttl?: number;
  readonly mayIssueScope?: string;
  readonly mayIssueKeys: readonly string[];
  readonly mayIssueProject: readonly string[];
  /** Seconds. */
  readonly mayIssueTtl?: number;
  readonly json?: true;
}

/** Prints a new token, and nothing else, so that it can be captured. */
export async function issueToken(environment: Environment, options: IssueOptions): Promise<void> {
  const request = issueTokenSchema.safeParse({
    sub: options.sub,
    typ: options.typ,
    scope: wordsOf(options.scope),
    keys: options.keys,
    projects: [...options.project, ...options.projects],
    ttl_s: options.ttl,
    may_issue: mayIssueOf(options),
  });
  if (!request.success)
    throw new UsageError(
      request.error.issues.map((issue) => `--${issue.path.join('.')}: ${issue.message}`).join('; '),
    );
  const issued = await withKms(environment, ({ tokens }) => tokens.issue(request.data, CLI_CALLER));
  console.log(options.json ? JSON.stringify(issued) : issued.token);
}

/**
 * What the token may issue; undefined when no option speaks of it. A part that is missing is a fault that the
 * schema names.
 */
function mayIssueOf({ mayIssueScope, mayIssueKeys, mayIssueProject, mayIssueTtl }: IssueOptions) {
  const isGiven = mayIssueKeys.length > 0 || mayIssueProject.length > 0 || mayIssueTtl !== undefined;
  if (mayIssueScope === undefined && !isGiven) return undefined;
  return {
    scopes: wordsOf(mayIssueScope ?? ''),
    keys: mayIssueKeys,
    projects: mayIssueProject,
    ttl_s: mayIssueTtl,
  };
}

function wordsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}

const PAGE = 500;

export async function listTokens(environment: Environment, options: { json?: true }): Promise<void> {
  const { tokens, damaged } = await withKms(environment, (kms) => allTokens(kms.tokens));
  if (options.json) {
    console.log(JSON.stringify({ tokens, ...(damaged.length === 0 ? {} : { damaged }) }));
    return;
  }
  for (const token of tokens)
    console.log(
      [token.jti, stateOf(token), token.typ, token.sub, token.scope.join(','), token.expires_at].join('  '),
    );
  for (const jti of damaged) console.log([jti, 'damaged'].join('  '));
}

async function allTokens(service: TokenService): Promise<Omit<TokenList, 'next'>> {
  const tokens: TokenInfo[] = [];
  const damaged: string[] = [];
  let after: string | undefined;
  do {
    const page = await service.list({ after, limit: PAGE });
    tokens.push(...page.tokens);
    damaged.push(...page.damaged);
    after = page.next;
  } while (after !== undefined);
  return { tokens, damaged };
}

/**
 * Revokes the token and every token of its family, with `cascade` also what they issued; a running server
 * refuses them from its next request on.
 */
export async function revokeToken(
  environment: Environment,
  jti: string,
  options: { cascade?: true; json?: true },
): Promise<void> {
  const cascade = options.cascade === true;
  const issued = await withKms(environment, ({ tokens }) => tokens.revoke(jti, CLI_CALLER, { cascade }));
  if (options.json) console.log(JSON.stringify({ jti, revoked: true, ...(cascade ? { issued } : {}) }));
  else if (cascade) console.log(`revoked, with ${issued} tokens that it issued`);
}

function stateOf(token: TokenInfo): 'revoked' | 'expired' | 'valid' {
  if (token.revoked_at !== undefined) return 'revoked';
  return Date.parse(token.expires_at) <= Date.now() ? 'expired' : 'valid';
}
