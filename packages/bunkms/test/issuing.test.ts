import { randomUUID } from 'node:crypto';
import { issuedTokenSchema, type MayIssue, tokenPageSchema } from '@bundoc/shared/contract/tokens';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tokenIssueDraft } from '../src/records/token-record.ts';
import type { IssuePlace } from '../src/store/tokens.ts';
import { openEvents } from './support/events.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { MAY_ISSUE_ALL, startKms, type TestKms } from './support/kms.ts';

const LIMIT: MayIssue = {
  scopes: ['docs:read', 'docs:write', 'kms:read_key', 'kms:admin'],
  projects: ['project-a', 'project-b'],
  keys: ['a-*', 'b-dek'],
  ttl_s: 600,
};

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString());

describe('tokens that issue others', () => {
  const faulty = new FaultyStore();
  let kms: TestKms;
  beforeEach(async () => {
    kms = await startKms({ decorate: faulty.decorate });
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const issuer = async (may_issue: MayIssue = LIMIT) =>
    (await kms.issue({ sub: 'issuer', scope: ['kms:admin'], may_issue })).token;
  const ask = (token: string, body: object) => kms.api('/v1/tokens', { token, body: { sub: 'x', ...body } });
  const issued = async (token: string, body: object) =>
    issuedTokenSchema.strict().parse((await ask(token, body)).json());
  const works = async (token: string) => (await kms.api('/v1/keys', { token })).status === 200;

  it('issue within their may_issue, and the store has the issuer', async () => {
    const token = await issuer();
    const app = await issued(token, {
      typ: 'client',
      scope: ['docs:read'],
      projects: ['project-b'],
      ttl_s: 600,
    });
    const claims = claimsOf(token);
    expect(claims.may_issue).toEqual(LIMIT);
    expect(app.issuer).toBe(claims.jti);
    const admin = await kms.issue({ scope: ['kms:admin'] });
    const page = tokenPageSchema.parse((await kms.api('/v1/tokens', { token: admin.token })).json());
    expect(page.tokens.map(({ jti, issuer: by }) => [jti, by])).toEqual([
      [claims.jti, undefined],
      [app.jti, claims.jti],
      [admin.jti, undefined],
    ]);
    expect((await kms.records()).find(({ detail }) => detail?.['token'] === app.jti)).toMatchObject({
      severity: 'CRITICAL',
      actor: 'issuer',
      jti: claims.jti,
      detail: { issuer: claims.jti },
    });
  });

  it('share their root with issued tokens and renewals, over generations', async () => {
    const root = await issuer();
    const child = await issued(root, {
      typ: 'service',
      scope: ['kms:admin'],
      may_issue: { ...LIMIT, projects: ['project-a'] },
    });
    const renewed = issuedTokenSchema.parse(
      (await kms.api('/v1/tokens/renew', { method: 'POST', token: child.token })).json(),
    );
    const leaf = await issued(renewed.token, {
      typ: 'client',
      scope: ['docs:read'],
      projects: ['project-a'],
    });
    const { jti } = claimsOf(root);
    for (const { token } of [{ token: root }, child, renewed, leaf]) expect(claimsOf(token).root).toBe(jti);
  });

  it('give issued tokens separate roots only when they may issue for all projects', async () => {
    const operator = await issuer({ ...LIMIT, projects: ['*'] });
    const tenant = await issued(operator, {
      typ: 'service',
      scope: ['kms:admin'],
      may_issue: { ...LIMIT, projects: ['project-a'] },
    });
    const other = await issued(operator, { typ: 'client', scope: ['docs:read'], projects: ['project-a'] });
    const ofTenant = await issued(tenant.token, {
      typ: 'client',
      scope: ['docs:read'],
      projects: ['project-a'],
    });
    expect([tenant, other, ofTenant].map(({ token }) => claimsOf(token).root)).toEqual([
      tenant.jti,
      other.jti,
      tenant.jti,
    ]);
  });

  it('issue tokens with a default life within their limit', async () => {
    const { issued_at, expires_at } = await issued(await issuer(), {
      typ: 'client',
      scope: ['docs:read'],
      projects: ['project-a'],
    });
    expect(Date.parse(expires_at) - Date.parse(issued_at)).toBe(600_000);
  });

  it.each([
    [
      'a scope',
      { typ: 'client', scope: ['docs:admin'], projects: ['project-a'] },
      'may_issue allows no scope docs:admin',
    ],
    [
      'a project',
      { typ: 'client', scope: ['docs:read'], projects: ['project-c'] },
      'allows no project project-c',
    ],
    ['every project', { typ: 'client', scope: ['docs:read'], projects: ['*'] }, 'allows no project *'],
    ['a key', { typ: 'service', scope: ['kms:read_key'], keys: ['b-dek', 'c-dek'] }, 'allows no keys c-dek'],
    ['a glob', { typ: 'service', scope: ['kms:read_key'], keys: ['a*'] }, 'allows no keys a*'],
    [
      'a life',
      { typ: 'client', scope: ['docs:read'], projects: ['project-a'], ttl_s: 601 },
      'allows no ttl_s above 600',
    ],
    [
      'a scope that is passed on',
      { typ: 'service', scope: ['kms:admin'], may_issue: { ...LIMIT, scopes: ['docs:read', 'kms:decrypt'] } },
      'may_issue lets nobody pass on scope kms:decrypt',
    ],
    [
      'a key that is passed on',
      { typ: 'service', scope: ['kms:admin'], may_issue: { ...LIMIT, keys: ['*'] } },
      'may_issue lets nobody pass on keys *',
    ],
    [
      'a life that is passed on',
      { typ: 'service', scope: ['kms:admin'], may_issue: { ...LIMIT, ttl_s: 700 } },
      'may_issue lets nobody pass on ttl_s above 600',
    ],
  ])('issue nothing beyond their may_issue: %s', async (_what, body, detail) => {
    const before = (await kms.store.counts()).tokens;
    const token = await issuer();
    const answer = await ask(token, body);
    expect(answer.json()).toMatchObject({ status: 403, code: 'forbidden' });
    expect(answer.json().detail).toContain(detail);
    expect((await kms.store.counts()).tokens).toBe(before + 1);
  });

  it('need may_issue: kms:admin alone can issue nothing', async () => {
    const { token } = await kms.issue({ scope: ['kms:admin'] });
    const answer = await ask(token, { typ: 'client', scope: ['docs:read'], projects: ['project-a'] });
    expect(answer.json()).toMatchObject({
      status: 403,
      code: 'forbidden',
      detail: 'the token has no may_issue',
    });
  });

  it('keep may_issue when they are renewed, and no other token gains it by a renewal', async () => {
    const token = await issuer();
    const renewed = issuedTokenSchema.parse(
      (await kms.api('/v1/tokens/renew', { method: 'POST', token })).json(),
    );
    expect(renewed.may_issue).toEqual(LIMIT);
    const child = await issued(renewed.token, { typ: 'service', scope: ['kms:read_key'], keys: ['a-x'] });
    expect(child.issuer).toBe(renewed.jti);
    const grown = issuedTokenSchema.parse(
      (await kms.api('/v1/tokens/renew', { method: 'POST', token: child.token })).json(),
    );
    expect(grown).toMatchObject({ issuer: renewed.jti, keys: ['a-x'] });
    expect(grown.may_issue).toBeUndefined();
  });

  it('must be service tokens: a client token has neither kms:admin, kms:manage_kek nor may_issue', async () => {
    const token = await issuer(MAY_ISSUE_ALL);
    for (const body of [
      { typ: 'client', scope: ['kms:admin'] },
      { typ: 'client', scope: ['kms:manage_kek'] },
      { typ: 'client', scope: ['docs:read'], projects: ['project-a'], may_issue: LIMIT },
      { typ: 'service', scope: ['kms:read_key'], may_issue: LIMIT },
    ])
      expect((await ask(token, body)).json()).toMatchObject({ status: 400, code: 'invalid_request' });
  });

  it('issue no token that exceeds the header limit', async () => {
    const keys = Array.from({ length: 100 }, (_, n) => `${n}-${'k'.repeat(120)}`.slice(0, 120));
    const answer = await ask(await issuer(MAY_ISSUE_ALL), { typ: 'service', scope: ['kms:read_key'], keys });
    expect(answer.json()).toMatchObject({ status: 400, code: 'invalid_request' });
    expect(answer.json().detail).toContain('name fewer keys or projects');
  });

  describe('tokens with only kms:issue_client', () => {
    const GRANT: MayIssue = {
      scopes: ['docs:read', 'docs:write'],
      projects: ['project-a'],
      keys: [],
      ttl_s: 900,
    };
    const backend = (ttl_s = 86_400) =>
      kms.issue({ sub: 'shop', scope: ['kms:issue_client'], may_issue: GRANT, ttl_s });
    const user = { typ: 'client', scope: ['docs:read'], projects: ['project-a'] };

    it('issue a client token in one call, with the caller on record', async () => {
      const { token, jti } = await backend();
      const issuedNow = await issued(token, user);
      expect(issuedNow).toMatchObject({ typ: 'client', issuer: jti, projects: ['project-a'] });
      expect(Date.parse(issuedNow.expires_at) - Date.parse(issuedNow.issued_at)).toBe(900_000);
      expect((await kms.records()).find(({ detail }) => detail?.['token'] === issuedNow.jti)).toMatchObject({
        action: 'token.issue',
        actor: 'shop',
        jti,
        outcome: 'allowed',
      });
    });

    it('issue no token that outlives them, and report its expiry', async () => {
      const { token, expires_at } = await backend(600);
      for (const body of [user, { ...user, ttl_s: 900 }])
        expect((await issued(token, body)).expires_at).toBe(expires_at);
      expect((await ask(token, { ...user, ttl_s: 901 })).json()).toMatchObject({ code: 'forbidden' });
    });

    it('issue neither service tokens, nor issuing tokens, nor anything beyond their grant', async () => {
      const { token } = await backend();
      for (const [body, detail] of [
        [{ ...user, typ: 'service' }, 'kms:issue_client issues client tokens only'],
        [{ ...user, scope: ['docs:admin'] }, 'may_issue allows no scope docs:admin'],
        [{ ...user, projects: ['project-b'] }, 'may_issue allows no project project-b'],
        [{ ...user, projects: ['*'] }, 'may_issue allows no project *'],
      ] as const)
        expect((await ask(token, body)).json()).toMatchObject({ code: 'forbidden', detail });
      const further = { ...user, typ: 'service', scope: ['kms:issue_client'], may_issue: GRANT };
      expect((await ask(token, further)).json()).toMatchObject({ code: 'forbidden' });
      expect((await ask(token, { ...user, may_issue: GRANT })).json()).toMatchObject({
        code: 'invalid_request',
      });
    });

    it('cannot list or revoke tokens', async () => {
      const { token, jti } = await backend();
      expect((await kms.api('/v1/tokens', { token })).status).toBe(403);
      expect((await kms.api(`/v1/tokens/${jti}`, { token, method: 'DELETE' })).status).toBe(403);
    });

    it('can be issued only by a may_issue with the scope, and never without a grant', async () => {
      const body = { typ: 'service', scope: ['kms:issue_client'], may_issue: GRANT, ttl_s: 600 };
      const limit: MayIssue = { ...GRANT, scopes: [...GRANT.scopes, 'kms:issue_client'] };
      const child = await issued(await issuer(limit), body);
      expect((await issued(child.token, user)).issuer).toBe(child.jti);
      expect((await ask(await issuer(GRANT), body)).json()).toMatchObject({ code: 'forbidden' });
      const { may_issue: _, ...without } = body;
      expect((await ask(await issuer(limit), without)).json()).toMatchObject({ code: 'invalid_request' });
    });
  });

  describe('a revocation of issuing tokens', () => {
    const pass = (token: string) =>
      issued(token, {
        typ: 'service',
        scope: ['kms:admin', 'kms:read_key'],
        keys: ['a-dek'],
        may_issue: LIMIT,
      });
    const leaf = (token: string) =>
      issued(token, { typ: 'service', scope: ['kms:read_key'], keys: ['a-dek'], ttl_s: 600 });
    const families = async () => {
      const root = await kms.issue({ sub: 'root', scope: ['kms:admin', 'kms:read_key'], may_issue: LIMIT });
      const child = await pass(root.token);
      const grandchild = await pass(child.token);
      const renewed = issuedTokenSchema.parse(
        (await kms.api('/v1/tokens/renew', { method: 'POST', token: grandchild.token })).json(),
      );
      const great = await leaf(renewed.token);
      return { root, child, grandchild, renewed, great, sibling: await leaf(root.token) };
    };
    const revoke = async (jti: string, query = '?cascade=true') =>
      (await kms.api(`/v1/tokens/${jti}${query}`, { method: 'DELETE', token: await kms.fullToken() })).status;

    it('a revocation with cascade covers all issued tokens over three generations and renewals, each with an event', async () => {
      const { root, child, grandchild, renewed, great, sibling } = await families();
      const stranger = await leaf(await issuer());
      const bundoc = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
      using stream = await openEvents(kms.running.internalUrl, bundoc.token);
      await expect.poll(() => stream.seen.length).toBeGreaterThan(0);
      expect(await revoke(child.jti)).toBe(204);
      for (const { token } of [child, grandchild, renewed, great]) expect(await works(token)).toBe(false);
      for (const { token } of [root, sibling, stranger]) expect(await works(token)).toBe(true);
      const pushed = () =>
        stream.seen.filter(({ type }) => type === 'token.revoke').map(({ data }) => data['family']);
      await expect.poll(pushed).toEqual(expect.arrayContaining([child.jti, grandchild.jti, great.jti]));
      expect(pushed()).toHaveLength(3);
      const records = (await kms.records()).filter(({ action }) => action === 'token.revoke');
      expect(records.map(({ severity, detail }) => [severity, detail?.['cascade']])).toEqual([
        ['CRITICAL', true],
        ['CRITICAL', child.jti],
        ['CRITICAL', child.jti],
      ]);
      expect(await revoke(child.jti)).toBe(204);
      expect((await kms.records()).filter(({ action }) => action === 'token.revoke')).toHaveLength(3);
    });

    it('a revocation without cascade does not affect issued tokens', async () => {
      const { root, child } = await families();
      expect(await revoke(root.jti, '')).toBe(204);
      expect([await works(root.token), await works(child.token)]).toEqual([false, true]);
      expect(await revoke(root.jti)).toBe(204);
      expect(await works(child.token)).toBe(false);
    });

    it('a revocation with cascade that is interrupted is completed by a repeated call, and blocks issues meanwhile', async () => {
      const { root, child, great } = await families();
      faulty.replaced.listIssues = () => Promise.reject(new Error('cut'));
      expect(await revoke(root.jti)).toBe(500);
      delete faulty.replaced.listIssues;
      expect(
        (await ask(root.token, { typ: 'client', scope: ['docs:read'], projects: ['project-a'] })).status,
      ).toBe(401);
      expect([await works(child.token), await works(great.token)]).toEqual([true, true]);
      expect(await revoke(root.jti)).toBe(204);
      expect([await works(child.token), await works(great.token)]).toEqual([false, false]);
    });

    it('a revocation with cascade covers thousands of tokens in bounded steps, and visits each family once', async () => {
      const { root } = await families();
      const { family: _, jti: __, ...like } = await leaf(root.token);
      const many = Array.from({ length: 3_000 }, () => {
        const jti = randomUUID();
        return { ...like, jti, family: jti };
      });
      const time = new Date().toISOString();
      await kms.store.appendAudit(
        many.map((token) => tokenIssueDraft({ caller: {}, time, action: 'token.issue' }, token)),
      );
      const looks: [by: string, of: readonly string[], found: number][] = [];
      faulty.replaced.listIssues = async (real, by, places: readonly IssuePlace[], limit) => {
        const found = (await real(by, places, limit)) as unknown[][];
        const starts = places.filter(({ after }) => after === 0).map(({ of }) => of);
        looks.push([by, starts, found.flat().length]);
        return found;
      };
      expect(await revoke(root.jti)).toBe(204);
      delete faulty.replaced.listIssues;
      const ended = (await kms.records()).filter(({ action }) => action === 'token.revoke');
      // Plus other tokens that the root has issued, and the root.
      expect(new Set(ended.map(({ detail }) => detail?.['family'])).size).toBe(3_000 + 6);
      expect(Math.max(...looks.map(([, , found]) => found))).toBeLessThanOrEqual(1_000);
      const asked = looks.filter(([by]) => by === 'family').flatMap(([, of]) => of);
      expect(asked).toHaveLength(new Set(asked).size);
      // Two reads per 50 families, one of the tokens that they issued, and the pages of the root.
      expect(looks.length).toBeLessThan(4 * (3_000 / 50));
    });

    it('lets no token escape: one whose issuer was revoked in the meantime is not stored', async () => {
      const { root } = await families();
      faulty.replaced.insertToken = async (real, ...args) => {
        await revoke(root.jti);
        return real(...args);
      };
      expect(
        (await ask(root.token, { typ: 'client', scope: ['docs:read'], projects: ['project-a'] })).status,
      ).toBe(401);
      delete faulty.replaced.insertToken;
    });
  });
});
