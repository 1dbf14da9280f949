import { hasCode } from '@bundoc/shared/contract/app-error';
import { globMatches } from '@bundoc/shared/contract/grants';
import { type MayIssue, scopeSchema } from '@bundoc/shared/contract/tokens';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { reachesAll, requireIssuer, requireMayIssue, type SizedRequest } from './may-issue.ts';

/** Few names, globs and scopes, so that many pairs match. */
const scope = fc.constantFrom(...scopeSchema.options.slice(0, 4), 'kms:admin' as const);
const project = fc.constantFrom('*', 'p', 'q');
const glob = fc.string({ unit: fc.constantFrom('a', 'b', '*'), minLength: 1, maxLength: 5 });
const name = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 6 });
const limit: fc.Arbitrary<MayIssue> = fc.record({
  scopes: fc.uniqueArray(scope, { minLength: 1 }),
  projects: fc.uniqueArray(project),
  keys: fc.array(glob, { maxLength: 3 }),
  ttl_s: fc.integer({ min: 1, max: 10 }),
});
const request: fc.Arbitrary<SizedRequest> = fc
  .tuple(limit, fc.option(limit, { nil: undefined }))
  .map(([{ scopes, projects, keys, ttl_s }, further]) => ({
    sub: 'x',
    typ: 'service' as const,
    scope: scopes,
    projects,
    keys,
    ttl_s,
    ...(further === undefined ? {} : { may_issue: further }),
  }));

const isAllowed = (by: MayIssue, wanted: SizedRequest): boolean => {
  try {
    requireMayIssue(by, wanted);
    return true;
  } catch (error) {
    expect(hasCode(error, 'forbidden')).toBe(true);
    return false;
  }
};
const covers = (keys: readonly string[], key: string) => keys.some((one) => globMatches(one, key));
const has = (projects: readonly string[], one: string) => projects.includes('*') || projects.includes(one);

/** Expects every right of the inner one in the outer one. */
function expectWithin(outer: MayIssue, inner: MayIssue, keys: readonly string[]): void {
  for (const one of inner.scopes) expect(outer.scopes).toContain(one);
  for (const one of ['p', 'q', 'another'])
    if (has(inner.projects, one)) expect(has(outer.projects, one)).toBe(true);
  for (const key of keys) if (covers(inner.keys, key)) expect(covers(outer.keys, key)).toBe(true);
  expect(inner.ttl_s).toBeLessThanOrEqual(outer.ttl_s);
}

describe('may_issue of a token', () => {
  it('never widens over any chain of tokens that issue each other', () => {
    fc.assert(
      fc.property(
        limit,
        fc.array(request, { maxLength: 12 }),
        fc.array(name, { maxLength: 10 }),
        (root, requests, keys) => {
          let current: MayIssue | undefined = root;
          for (const wanted of requests) {
            if (current === undefined || !isAllowed(current, wanted)) continue;
            expectWithin(root, { ...wanted, scopes: wanted.scope }, keys);
            if (wanted.may_issue !== undefined) {
              expectWithin(current, wanted.may_issue, keys);
              current = wanted.may_issue;
            }
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('never lets a token that does not reach every token issue one that does', () => {
    const most: fc.Arbitrary<MayIssue> = fc.record({
      scopes: fc.constantFrom<MayIssue['scopes'][]>([...scopeSchema.options], scopeSchema.options.slice(1), [
        'kms:admin',
      ]),
      projects: fc.constantFrom<string[][]>(['*'], ['p']),
      keys: fc.array(glob, { maxLength: 3 }),
      ttl_s: fc.constant(10),
    });
    let issued = 0;
    fc.assert(
      fc.property(most, fc.option(most, { nil: undefined }), (issuer, further) => {
        const wanted: SizedRequest = {
          sub: 'x',
          typ: 'service',
          scope: ['kms:admin'],
          keys: [],
          projects: [],
          ttl_s: 10,
          ...(further === undefined ? {} : { may_issue: further }),
        };
        if (!isAllowed(issuer, wanted)) return;
        if (reachesAll(wanted)) expect(reachesAll({ may_issue: issuer })).toBe(true);
        else issued++;
      }),
      { numRuns: 2_000 },
    );
    expect(issued).toBeGreaterThan(0);
  });

  it('allows itself, and anything with less in one respect', () => {
    fc.assert(
      fc.property(limit, (one) => {
        const { scopes, ...rest } = one;
        const same: SizedRequest = { sub: 'x', typ: 'service', scope: scopes, ...rest, may_issue: one };
        expect(isAllowed(one, same)).toBe(true);
        expect(isAllowed(one, { ...same, keys: [], may_issue: { ...one, projects: [] } })).toBe(true);
        expect(isAllowed(one, { ...same, ttl_s: one.ttl_s + 1 })).toBe(false);
      }),
    );
  });

  it('allows nothing when it is absent', () => {
    fc.assert(
      fc.property(request, (wanted) => {
        expect(() => requireMayIssue(undefined, wanted)).toThrow(
          expect.objectContaining({ code: 'forbidden', detail: 'the token has no may_issue' }),
        );
      }),
    );
  });

  it('allows only client tokens within the grant with kms:issue_client, which cannot be passed on', () => {
    const wanted = fc
      .tuple(request, fc.constantFrom('client' as const, 'service' as const))
      .map(([one, typ]): SizedRequest => ({ ...one, typ }));
    let allowed = 0;
    fc.assert(
      fc.property(limit, wanted, fc.array(name, { maxLength: 10 }), (may_issue, one, keys) => {
        try {
          requireIssuer({ scope: ['kms:issue_client'], may_issue }, one);
        } catch (error) {
          expect(hasCode(error, 'forbidden')).toBe(true);
          // A client token is refused only if it exceeds the grant.
          if (one.typ === 'client') expect(isAllowed(may_issue, one)).toBe(false);
          return;
        }
        allowed++;
        expect(one.typ).toBe('client');
        expectWithin(may_issue, { ...one, scopes: one.scope }, keys);
      }),
      { numRuns: 2_000 },
    );
    expect(allowed).toBeGreaterThan(0);
  });
});
