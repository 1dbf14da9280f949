import { describe, expect, it } from 'vitest';
import { hasCode } from './app-error.ts';
import { globMatches, mayUseKey, requireKey, requireProject, requireScope } from './grants.ts';
import { type Claims, claimsSchema } from './tokens.ts';

function claims(grants: Partial<Record<'scope' | 'keys' | 'projects', unknown>> = {}): Claims {
  return claimsSchema.parse({
    iss: 'bunkms',
    aud: 'bundoc',
    sub: 'app',
    typ: 'client',
    scope: '',
    jti: '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11',
    iat: 1,
    exp: 2,
    ...grants,
  });
}

function outcome(check: () => void): 'allowed' | 'forbidden' {
  try {
    check();
    return 'allowed';
  } catch (error) {
    if (hasCode(error, 'forbidden')) return 'forbidden';
    throw error;
  }
}

describe('globMatches', () => {
  it.each([
    ['*', 'anything', true],
    ['*', '', true],
    ['', '', true],
    ['', 'a', false],
    ['a', 'a', true],
    ['a', 'ab', false],
    ['a', 'A', false],
    ['project-a-dek', 'project-a-dek', true],
    ['project-a', 'project-a-dek', false],
    ['project-a*', 'project-a-dek', true],
    ['project-a*', 'project-b-dek', false],
    ['*-dek', 'project-a-dek', true],
    ['*-dek', 'project-a-dek2', false],
    ['a*a', 'a', false],
    ['a*a', 'aa', true],
    ['ab*ba', 'aba', false],
    ['a*b*c', 'a-c-b-c', true],
    ['a*b*c', 'a-c', false],
    ['a*b*b', 'ab', false],
    ['**', 'x', true],
    ['a**b', 'ab', true],
    ['a.b', 'axb', false],
    ['a.*', 'a.b', true],
    ['a.*', 'axb', false],
  ])('%j against %j is %j', (glob, name, matches) => {
    expect(globMatches(glob, name)).toBe(matches);
  });
});

describe('a grant', () => {
  it('a grant of a scope covers exactly that scope', () => {
    const reader = claims({ scope: 'docs:read kms:export_keys' });
    expect(outcome(() => requireScope(reader, 'docs:read'))).toBe('allowed');
    expect(outcome(() => requireScope(reader, 'docs:write'))).toBe('forbidden');
    expect(outcome(() => requireScope(reader, 'kms:export_key'))).toBe('forbidden');
    expect(outcome(() => requireScope(claims(), 'docs:read'))).toBe('forbidden');
    expect(outcome(() => requireScope(claims({ scope: 'docs:admin kms:admin' }), 'docs:read'))).toBe(
      'forbidden',
    );
    expect(outcome(() => requireScope(claims({ scope: 'DOCS:READ docs:read\tx' }), 'docs:read'))).toBe(
      'forbidden',
    );
    expect(outcome(() => requireScope(claims({ scope: '*' }), 'docs:read'))).toBe('forbidden');
  });

  it('a grant of keys covers names that match one of its globs, and none without globs', () => {
    const holder = claims({ keys: ['x', 'project-*-dek'] });
    expect(mayUseKey(holder, 'project-a-dek')).toBe(true);
    expect(outcome(() => requireKey(holder, 'project-a-dek'))).toBe('allowed');
    expect(outcome(() => requireKey(holder, 'project-a'))).toBe('forbidden');
    expect(outcome(() => requireKey(claims({ projects: ['*'] }), 'x'))).toBe('forbidden');
  });

  it('a grant of projects covers exactly those, or all by *, and a star elsewhere is no wildcard', () => {
    expect(outcome(() => requireProject(claims({ projects: ['project-a'] }), 'project-a'))).toBe('allowed');
    expect(outcome(() => requireProject(claims({ projects: ['Project-A'] }), 'project-a'))).toBe('allowed');
    expect(outcome(() => requireProject(claims({ projects: ['project-a'] }), 'project-ab'))).toBe(
      'forbidden',
    );
    expect(outcome(() => requireProject(claims({ projects: ['*'] }), 'project-b'))).toBe('allowed');
    expect(outcome(() => requireProject(claims({ keys: ['*'] }), 'project-b'))).toBe('forbidden');
    expect(() => claims({ projects: ['project-*'] })).toThrow();
  });

  it('a missing grant leads to a refusal that does not name the requested key or project', () => {
    for (const check of [() => requireKey(claims(), 'hidden'), () => requireProject(claims(), 'hidden')])
      expect(check).toThrow(/^(?!.*hidden)/);
  });
});
