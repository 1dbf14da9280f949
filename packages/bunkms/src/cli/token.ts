import {
  type AddCommands,
  type Command,
  collect,
  command,
  helpItems,
  Option,
  parserFor,
} from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { printToken } from '@bundoc/shared/cli/explain-token';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { readText } from '@bundoc/shared/cli/read-text';
import { type Column, tableOrBlocks } from '@bundoc/shared/cli/table';
import { isForServices, rightOf, SCOPES, scopesOfKeys } from '@bundoc/shared/contract/scopes';
import {
  issueTokenSchema,
  scopeSchema,
  type TokenInfo,
  tokenTypeSchema,
} from '@bundoc/shared/contract/tokens';
import { WORDS } from '@bundoc/shared/logs/fault-words';
import type { Environment } from '@bundoc/shared/process/config';
import { CLI_CALLER } from '../records/caller.ts';
import type { TokenList, TokenService } from '../tokens/token-service.ts';
import { UsageError } from './errors.ts';
import { withKms } from './open-kms.ts';

const duration = parserFor('90s, 15m, 1h or 30d', (text) => {
  const [, amount, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  return amount === undefined ? undefined : Number(amount) * SECONDS[unit as keyof typeof SECONDS];
});
const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 } as const;
const TOKEN_STATES = ['valid', 'expired', 'revoked'] as const;

/** `bunkms token …`: service and client tokens. */
export const addTokenCommands: AddCommands = (program, environment) => {
  const group = program.command('token').description('service and client tokens');
  addIssue(group, environment);
  command(
    group,
    'list',
    'lists issued tokens: subject, scopes, issuer and expiry; never the tokens themselves',
  )
    .option('--sub <subject>', 'for one subject')
    .addOption(new Option('--typ <type>', 'of one type').choices(tokenTypeSchema.options))
    .addOption(new Option('--scope <scope>', 'with this scope').choices(scopeSchema.options))
    .option('--project <id>', 'that are valid for this project')
    .option('--issuer <jti>', 'issued by this token; "cli" for the command line')
    .addOption(new Option('--state <state>', 'in one state').choices(TOKEN_STATES))
    .action((options) => listTokens(environment, options));
  command(group, 'inspect', 'explains what a token is for, what it may do and when it expires; works offline')
    .argument('[token]', '- or nothing: standard input', '-')
    .option('--jwks <file>', 'check its signature with these keys, as in /.well-known/jwks.json')
    .action(async (given, options) => {
      const text = given === '-' ? await readText(given) : given;
      if (text.trim() === '')
        throw new UsageError('there is no token: give one as argument or on standard input');
      await printToken(text, options);
    });
  // A running server refuses them from its next request on.
  command(group, 'revoke', 'revokes a token and its renewals')
    .argument('<jti>', 'the token')
    .option('--cascade', 'also revoke the tokens that it issued, directly or indirectly')
    .action(async (jti, { cascade = false, ...options }) => {
      const issued = await withKms(environment, ({ tokens }) => tokens.revoke(jti, CLI_CALLER, { cascade }));
      const those = cascade ? `, and ${counted(issued, 'token')} that it issued` : '';
      print(options, { jti, revoked: true, ...(cascade ? { issued } : {}) }, () => [
        `revoked ${jti} with its renewals${those}: BunKMS refuses them from now on, Bundoc once the event reaches it`,
      ]);
    });
};

const SCOPE_WIDTH = Math.max(...SCOPES.map(({ length }) => length)) + 2;
/** All scopes. Those of the two services need separate tokens. */
const SCOPE_ITEMS = SCOPES.map((scope): [string, string] => [
  `${scope.padEnd(SCOPE_WIDTH)}${isForServices(scope) ? '*' : ' '}`,
  rightOf(scope) ?? '',
]);

function addIssue(group: Command, environment: Environment): void {
  command(group, 'issue', 'prints a new token; with --json, also its claims')
    .requiredOption('--typ <type>', 'service or client')
    .requiredOption('--sub <subject>', 'who the token is for')
    .requiredOption('--scope <scopes>', 'separated by spaces; listed below')
    .option('--keys <globs>', 'key names that it is for', collect, [])
    .option('--project <ids>', 'projects that it is for', collect, [])
    .option('--projects <ids>', 'the same as --project', collect, [])
    .option('--ttl <duration>', 'how long it is valid, such as 15m or 30d', duration)
    .option(
      '--may-issue-scope <scopes>',
      'scopes of the tokens that it may issue, separated by spaces; unless it may issue everything, kms:admin then reaches only those tokens',
    )
    .option('--may-issue-keys <globs>', 'key names that those may be for', collect, [])
    .option('--may-issue-project <ids>', 'projects that those may be for', collect, [])
    .option('--may-issue-ttl <duration>', 'how long those may be valid at most', duration)
    .addHelpText('after', helpItems('Scopes (docs/scopes.md). With *, only for service tokens:', SCOPE_ITEMS))
    .action((options) => issueToken(environment, options));
}

interface IssueOptions extends JsonOption {
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
}

/** Prints a new token, and nothing else, so that it can be captured. */
async function issueToken(environment: Environment, options: IssueOptions): Promise<void> {
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
  const { keys, scope } = request.data;
  const idle = keys.length === 0 ? scopesOfKeys(scope) : [];
  if (idle.length > 0)
    console.error(
      `bunkms: the token names no key, so it can use none by ${idle.join(' ')}: name keys with --keys, such as --keys '*'`,
    );
  print(options, issued, () => [issued.token]);
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

interface TokenFilter extends JsonOption {
  readonly sub?: string;
  readonly typ?: TokenInfo['typ'];
  readonly scope?: string;
  readonly project?: string;
  /** The token that issued it; `cli` for the command line. */
  readonly issuer?: string;
  readonly state?: (typeof TOKEN_STATES)[number];
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
async function listTokens(environment: Environment, filter: TokenFilter): Promise<void> {
  const all = await withKms(environment, (kms) => allTokens(kms.tokens));
  const tokens = all.tokens.filter((token) => passes(token, filter));
  // Nothing is known of damaged tokens, so filters do not apply and they are always reported.
  const { damaged } = all;
  print(filter, { tokens, ...(damaged.length === 0 ? {} : { damaged }) }, () => [
    ...tableOrBlocks(COLUMNS, tokens, process.stdout.columns),
    ...damaged.map((jti) => rowLine(jti, 'damaged')),
  ]);
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

function stateOf(token: TokenInfo): (typeof TOKEN_STATES)[number] {
  if (token.revoked_at !== undefined) return 'revoked';
  return Date.parse(token.expires_at) <= Date.now() ? 'expired' : 'valid';
}
