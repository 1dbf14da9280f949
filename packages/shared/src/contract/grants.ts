import { AppError } from './app-error.ts';
import type { Claims, Scope } from './tokens.ts';

/** True when `name` matches `glob`; `*` stands for any run of characters. Linear in both lengths. */
export function globMatches(glob: string, name: string): boolean {
  const parts = glob.split('*');
  const first = parts[0] ?? '';
  if (parts.length === 1) return glob === name;
  const last = parts[parts.length - 1] ?? '';
  if (name.length < first.length + last.length || !name.startsWith(first) || !name.endsWith(last))
    return false;
  let at = first.length;
  const end = name.length - last.length;
  for (const part of parts.slice(1, -1)) {
    const found = name.indexOf(part, at);
    if (found === -1 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}

/**
 * True when `outer` matches every name that `inner` matches. May be false even so when no valid name would
 * tell the two apart.
 */
export function globCovers(outer: string, inner: string): boolean {
  // No name contains NUL, so only a `*` of the outer glob matches it.
  return globMatches(outer, inner.replaceAll('*', '\0'));
}

/** @throws AppError `forbidden` unless the token has the scope. */
export function requireScope(claims: Claims, scope: Scope): void {
  if (!claims.scope.includes(scope))
    throw new AppError('forbidden', { detail: `the scope ${scope} is needed (docs/scopes.md)` });
}

/** @throws AppError `forbidden` unless it is a service token with the scope. */
export function requireService(claims: Claims, scope: Scope): void {
  requireServiceType(claims);
  requireScope(claims, scope);
}

function requireServiceType(claims: Claims): void {
  if (claims.typ !== 'service')
    throw new AppError('forbidden', { detail: 'a service token is needed (docs/scopes.md)' });
}

/** @throws AppError `forbidden` unless it is a service token with one of the scopes. */
export function requireServiceWithAny(claims: Claims, scopes: readonly [Scope, ...Scope[]]): void {
  if (scopes.some((scope) => claims.scope.includes(scope))) requireServiceType(claims);
  else requireService(claims, scopes[0]);
}

/** True when one of the token's key globs matches. */
export function mayUseKey(claims: Claims, name: string): boolean {
  return claims.keys.some((glob) => globMatches(glob, name));
}

/**
 * @throws AppError `forbidden` unless one of the token's key globs matches. Says nothing about whether the
 * key exists.
 */
export function requireKey(claims: Claims, name: string): void {
  if (!mayUseKey(claims, name)) throw new AppError('forbidden', { detail: 'the token is not for this key' });
}

/** Covers the key of every project (`dekNameOf`). */
const PROJECT_KEYS = '*-dek';

/**
 * @throws AppError `forbidden` unless one of the token's key globs covers the keys of all projects. A storage
 * may hold any of them.
 */
export function requireProjectKeys(claims: Claims): void {
  if (!claims.keys.some((glob) => globCovers(glob, PROJECT_KEYS)))
    throw new AppError('forbidden', {
      detail: `the token is not for all keys of projects (${PROJECT_KEYS})`,
    });
}

/**
 * @throws AppError `forbidden` unless the token is for the project. Says nothing about whether the project
 * exists.
 */
export function requireProject(claims: Claims, project: string): void {
  if (!claims.projects.includes('*') && !claims.projects.includes(project))
    throw new AppError('forbidden', { detail: 'the token is not for this project' });
}
