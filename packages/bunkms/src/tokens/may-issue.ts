import { AppError } from '@bundoc/shared/contract/app-error';
import { globCovers } from '@bundoc/shared/contract/grants';
import { type Claims, type IssueToken, type MayIssue, scopeSchema } from '@bundoc/shared/contract/tokens';

/** A request with the life of the token. */
export type SizedRequest = IssueToken & { readonly ttl_s: number };

/** Whether a token issues only client tokens: it has `kms:issue_client` but not `kms:admin`. */
export function issuesClientsAlone({ scope }: Pick<Claims, 'scope'>): boolean {
  return !scope.includes('kms:admin');
}

/**
 * Whether a token with `kms:admin` lists and revokes every token, and not only those that it has issued. It
 * does when it issues none, and when it may issue everything.
 */
export function reachesAll({ may_issue: limit }: Pick<Claims, 'may_issue'>): boolean {
  if (limit === undefined) return true;
  return (
    scopeSchema.options.every((scope) => limit.scopes.includes(scope)) &&
    limit.keys.some((glob) => globCovers(glob, '*')) &&
    limit.projects.includes('*')
  );
}

/**
 * Checks that a caller may issue the requested token. Without `kms:admin`, only client tokens are allowed,
 * which cannot issue others.
 *
 * @throws AppError `forbidden` naming the first excess.
 */
export function requireIssuer(issuer: Pick<Claims, 'scope' | 'may_issue'>, request: SizedRequest): void {
  if (issuesClientsAlone(issuer) && request.typ !== 'client')
    throw new AppError('forbidden', { detail: 'kms:issue_client issues client tokens only' });
  requireMayIssue(issuer.may_issue, request);
}

/**
 * Checks a request against the caller's `may_issue`: the token's rights, its life, and its own `may_issue`.
 *
 * @throws AppError `forbidden` naming the first excess.
 */
export function requireMayIssue(limit: MayIssue | undefined, request: SizedRequest): void {
  if (limit === undefined) throw new AppError('forbidden', { detail: 'the token has no may_issue' });
  const { scope: scopes, keys, projects, ttl_s, may_issue: further } = request;
  requireWithin(limit, { scopes, keys, projects, ttl_s }, 'may_issue allows no');
  if (further !== undefined) requireWithin(limit, further, 'may_issue lets nobody pass on');
  else if (scopes.includes('kms:admin') && !reachesAll({ may_issue: limit }))
    throw new AppError('forbidden', {
      detail:
        'may_issue allows kms:admin only with a may_issue: without one, it lists and revokes every token',
    });
}

function requireWithin(limit: MayIssue, wanted: MayIssue, words: string): void {
  const refuse = (what: string) => {
    throw new AppError('forbidden', { detail: `${words} ${what}` });
  };
  for (const scope of wanted.scopes) if (!limit.scopes.includes(scope)) refuse(`scope ${scope}`);
  for (const glob of wanted.keys)
    if (!limit.keys.some((outer) => globCovers(outer, glob))) refuse(`keys ${glob}`);
  for (const project of wanted.projects)
    if (!limit.projects.includes('*') && !limit.projects.includes(project)) refuse(`project ${project}`);
  if (wanted.ttl_s > limit.ttl_s) refuse(`ttl_s above ${limit.ttl_s}`);
}
