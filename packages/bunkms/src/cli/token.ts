import { counted } from '@bundoc/shared/cli/counted';
import { type Column, Table } from '@bundoc/shared/cli/table';
import { issueTokenSchema, type TokenInfo } from '@bundoc/shared/contract/tokens';
import { WORDS } from '@bundoc/shared/http/validate';
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
  const input = {
    sub: options.sub,
    typ: options.typ,
    scope: wordsOf(options.scope),
    keys: options.keys,
    projects: [...options.project, ...options.projects],
    ttl_s: options.ttl,
    may_issue: mayIssueOf(options),
  };
  const request = issueTokenSchema.safeParse(input, WORDS);
  if (!request.success)
    throw new UsageError(
      request.error.issues
        .map(
          ({ path, message }) => `${flagOf(path, options)}: ${isMissing(path, options) ? MISSING : message}`,
        )
        .join('; '),
    );
  const issued = await withKms(environment, ({ tokens }) => tokens.issue(request.data, CLI_CALLER));
  console.log(options.json ? JSON.stringify(issued) : issued.token);
}

const FLAGS: Readonly<Record<string, string>> = {
  sub: '--sub',
  typ: '--typ',
  scope: '--scope',
  keys: '--keys',
  projects: '--project',
  ttl_s: '--ttl',
  may_issue: '--may-issue-scope',
  'may_issue.scopes': '--may-issue-scope',
  'may_issue.keys': '--may-issue-keys',
  'may_issue.projects': '--may-issue-project',
  'may_issue.ttl_s': '--may-issue-ttl',
};

const MISSING = 'is required with the other options --may-issue-…';

/** Whether some, but not all, `--may-issue-…` options were given and this one was not. */
function isMissing([whole, part]: readonly PropertyKey[], options: IssueOptions): boolean {
  if (whole !== 'may_issue') return false;
  return (
    (part === 'ttl_s' && options.mayIssueTtl === undefined) ||
    (part === 'scopes' && options.mayIssueScope === undefined)
  );
}

/** The option for a member of the request, with the value for an element of a list. */
function flagOf(path: readonly PropertyKey[], options: IssueOptions): string {
  const names = path.filter((part) => typeof part === 'string');
  const index = path.find((part) => typeof part === 'number');
  const { project, projects } = options;
  const isOther = names[0] === 'projects' && (index ?? 0) >= project.length && projects.length > 0;
  const flag = isOther ? '--projects' : (FLAGS[names.join('.')] ?? `--${names.join('-')}`);
  const values: Readonly<Record<string, readonly string[]>> = {
    keys: options.keys,
    projects: [...project, ...projects],
    scope: wordsOf(options.scope),
    'may_issue.scopes': wordsOf(options.mayIssueScope ?? ''),
    'may_issue.keys': options.mayIssueKeys,
    'may_issue.projects': options.mayIssueProject,
  };
  const value = index === undefined ? undefined : values[names.join('.')]?.[index];
  return value === undefined ? flag : `${flag} ${value}`;
}

/** What the token may issue; undefined without such options. The schema reports missing parts. */
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

export interface TokenFilter {
  readonly sub?: string;
  readonly typ?: TokenInfo['typ'];
  readonly scope?: string;
  readonly project?: string;
  /** The token that issued it; `cli` for the command line. */
  readonly issuer?: string;
  readonly state?: TokenState;
  readonly json?: true;
}

const COLUMNS: readonly Column<TokenInfo>[] = [
  { head: 'token', cell: ({ jti }) => jti },
  { head: 'state', cell: stateOf },
  { head: 'type', cell: ({ typ }) => typ },
  { head: 'subject', cell: ({ sub }) => sub },
  { head: 'scopes', cell: ({ scope }) => scope.join(',') },
  { head: 'projects', cell: ({ projects }) => projects.join(',') || '-' },
  { head: 'keys', cell: ({ keys }) => keys.join(',') || '-' },
  { head: 'issuer', cell: ({ issuer }) => issuer ?? 'cli' },
  { head: 'ends', cell: ({ expires_at: expiresAt }) => expiresAt },
];

/** Prints the tokens that pass every filter: their purpose, issuer and expiry. */
export async function listTokens(environment: Environment, filter: TokenFilter): Promise<void> {
  const all = await withKms(environment, (kms) => allTokens(kms.tokens));
  const tokens = all.tokens.filter((token) => passes(token, filter));
  // Nothing is known of damaged tokens, so filters do not apply and they are always reported.
  const { damaged } = all;
  if (filter.json) {
    console.log(JSON.stringify({ tokens, ...(damaged.length === 0 ? {} : { damaged }) }));
    return;
  }
  for (const line of new Table(COLUMNS).lines(tokens)) console.log(line);
  for (const jti of damaged) console.log([jti, 'damaged'].join('  '));
}

function passes(token: TokenInfo, { sub, typ, scope, project, issuer, state }: TokenFilter): boolean {
  return (
    (sub === undefined || token.sub === sub) &&
    (typ === undefined || token.typ === typ) &&
    (scope === undefined || token.scope.includes(scope)) &&
    (project === undefined || token.projects.includes(project) || token.projects.includes('*')) &&
    (issuer === undefined || (token.issuer ?? 'cli') === issuer) &&
    (state === undefined || stateOf(token) === state)
  );
}

/** All tokens in the store. */
export async function allTokens(service: TokenService): Promise<Omit<TokenList, 'next'>> {
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
 * Revokes the token and its family; with `cascade` also the tokens that they issued. A running server refuses
 * them from its next request on.
 */
export async function revokeToken(
  environment: Environment,
  jti: string,
  options: { cascade?: true; json?: true },
): Promise<void> {
  const cascade = options.cascade === true;
  const issued = await withKms(environment, ({ tokens }) => tokens.revoke(jti, CLI_CALLER, { cascade }));
  if (options.json) console.log(JSON.stringify({ jti, revoked: true, ...(cascade ? { issued } : {}) }));
  else if (cascade) console.log(`revoked, with ${counted(issued, 'token')} that it issued`);
}

export const TOKEN_STATES = ['valid', 'expired', 'revoked'] as const;
type TokenState = (typeof TOKEN_STATES)[number];

function stateOf(token: TokenInfo): TokenState {
  if (token.revoked_at !== undefined) return 'revoked';
  return Date.parse(token.expires_at) <= Date.now() ? 'expired' : 'valid';
}
