import { auditPageSchema } from '@bundoc/shared/contract/audit';
import { issuedTokenSchema, tokenPageSchema } from '@bundoc/shared/contract/tokens';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MAY_ISSUE_ALL, startKms, type TestKms } from './support/kms.ts';

const DAY_MS = 86_400_000;

describe('tokens', () => {
  let clock: FakeClock;
  let kms: TestKms;
  let admin: string;
  beforeEach(async () => {
    clock = new FakeClock();
    kms = await startKms({ clock });
    const scope = ['kms:admin', 'kms:audit'] as const;
    const life = { ttl_s: 365 * 86_400, may_issue: MAY_ISSUE_ALL };
    admin = (await kms.issue({ sub: 'admin', scope: [...scope], ...life })).token;
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const renew = (token: string) => kms.internal('/v1/tokens/renew', { method: 'POST', token });
  const works = async (token: string) => (await kms.api('/v1/keys', { token })).status === 200;

  it('are issued with the requested claims, and work until they expire', async () => {
    const body = { sub: 'bundoc', typ: 'service', scope: ['kms:read_key'], keys: ['*-dek'] };
    const answer = await kms.api('/v1/tokens', { token: admin, body });
    expect(answer.status).toBe(201);
    const issued = issuedTokenSchema.strict().parse(answer.json());
    expect(issued).toMatchObject({ ...body, aud: 'bunkms', family: issued.jti, projects: [] });
    expect(Date.parse(issued.expires_at) - Date.parse(issued.issued_at)).toBe(30 * DAY_MS);
    expect(await works(issued.token)).toBe(true);
    clock.advance(30 * DAY_MS - 1_000);
    expect(await works(issued.token)).toBe(true);
    clock.advance(1_000);
    expect(await works(issued.token)).toBe(false);
  });

  it('name projects in canonical form', async () => {
    const body = { sub: 'app', typ: 'client', scope: ['docs:read'], projects: ['Project-A', '*'] };
    const issued = issuedTokenSchema.parse((await kms.api('/v1/tokens', { token: admin, body })).json());
    expect(issued.projects).toEqual(['project-a', '*']);
    const claims = JSON.parse(Buffer.from(String(issued.token.split('.')[1]), 'base64url').toString());
    expect(claims).toMatchObject({
      iss: 'bunkms',
      aud: 'bundoc',
      scope: 'docs:read',
      projects: ['project-a', '*'],
    });
    expect(claims.exp - claims.iat).toBe(3_600);
  });

  it('are removed by the service thirty days after the last of their family expired', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await using other = await startKms({ clock });
    const hour = () => vi.advanceTimersByTime(3_600_000);
    const { jti } = await other.issue({ scope: ['kms:read_key'], ttl_s: 86_400 });
    const kept = await other.issue({ scope: ['kms:read_key'], ttl_s: 2 * 86_400 });
    clock.advance(31 * DAY_MS);
    hour();
    await other.store.probe();
    expect((await other.store.findToken(jti))?.row).toBeDefined();
    clock.advance(1);
    hour();
    vi.useRealTimers();
    await expect.poll(async () => (await other.store.findToken(jti))?.row).toBeUndefined();
    expect((await other.store.findToken(kept.jti))?.row).toBeDefined();
    const records = (await other.records()).filter(({ action }) => action === 'token.prune');
    expect(records).toMatchObject([{ actor: 'system', detail: { count: 1 } }]);
    expect(await other.verify()).toMatchObject({ intact: true });
  });

  it('tokens of a service can be renewed for as long as it runs', async () => {
    const first = await kms.issue({ scope: ['kms:read_key'], keys: ['*-dek'], ttl_s: 600 });
    let { token } = first;
    for (let step = 0; step < 5; step++) {
      clock.advance(400_000);
      const answer = await renew(token);
      expect(answer.status).toBe(201);
      const next = issuedTokenSchema.parse(answer.json());
      expect(next).toMatchObject({
        sub: first.sub,
        scope: first.scope,
        keys: first.keys,
        family: first.family,
      });
      expect(next.jti).not.toBe(first.jti);
      expect(Date.parse(next.expires_at)).toBe(clock.now() + 600_000);
      token = next.token;
    }
    expect(await works(token)).toBe(true);
    expect(await works(first.token)).toBe(false);
    clock.advance(600_000);
    expect((await renew(token)).status).toBe(401);
  });

  it('tokens of a client cannot be renewed', async () => {
    const { token } = await kms.issue({ typ: 'client', scope: ['kms:read_key'], keys: ['*'] });
    expect((await renew(token)).json()).toMatchObject({ status: 403, code: 'forbidden' });
  });

  it('are revoked at once with their family, and no others', async () => {
    const root = await kms.issue({ scope: ['kms:read_key'] });
    const other = await kms.issue({ scope: ['kms:read_key'] });
    const child = issuedTokenSchema.parse((await renew(root.token)).json());
    const grandchild = issuedTokenSchema.parse((await renew(child.token)).json());
    for (const { token } of [root, child, grandchild, other]) expect(await works(token)).toBe(true);
    expect((await kms.api(`/v1/tokens/${child.jti}`, { method: 'DELETE', token: admin })).status).toBe(204);
    for (const { token } of [root, child, grandchild]) {
      expect(await works(token)).toBe(false);
      expect((await renew(token)).status).toBe(401);
    }
    expect(await works(other.token)).toBe(true);
    expect((await kms.api(`/v1/tokens/${child.jti}`, { method: 'DELETE', token: admin })).status).toBe(204);
  });

  it('are listed in pages, without the tokens themselves', async () => {
    for (let number = 0; number < 4; number++)
      await kms.issue({ sub: `s${number}`, scope: ['kms:read_key'] });
    const subjects: string[] = [];
    for (let cursor: string | undefined, isFirst = true; isFirst || cursor !== undefined; isFirst = false) {
      const answer = await kms.api(`/v1/tokens?limit=2${cursor === undefined ? '' : `&cursor=${cursor}`}`, {
        token: admin,
      });
      const page = tokenPageSchema.strict().parse(answer.json());
      expect(answer.text).not.toContain('eyJ');
      subjects.push(...page.tokens.map(({ sub }) => sub));
      cursor = page.next_cursor;
    }
    expect(subjects).toEqual(['admin', 's0', 's1', 's2', 's3']);
  });

  it('leave a record with the actor for each step, CRITICAL except for a renewal', async () => {
    const root = await kms.issue({ sub: 'bundoc', scope: ['kms:read_key'] });
    const child = issuedTokenSchema.parse((await renew(root.token)).json());
    await kms.api(`/v1/tokens/${root.jti}`, { method: 'DELETE', token: admin });
    const page = auditPageSchema.parse((await kms.api('/v1/audit?limit=500', { token: admin })).json());
    expect(page.records.slice(-3)).toMatchObject([
      { severity: 'CRITICAL', action: 'token.issue', actor: 'cli', detail: { token: root.jti } },
      {
        severity: 'INFO',
        action: 'token.renew',
        actor: 'bundoc',
        jti: root.jti,
        detail: { token: child.jti, family: root.jti },
      },
      { severity: 'CRITICAL', action: 'token.revoke', actor: 'admin', detail: { token: root.jti } },
    ]);
  });

  it('are refused by every process as soon as one of them has revoked them', async () => {
    await using other = await startKms({ clock, dataDir: kms.dataDir, kek: kms.kek });
    const { token, jti } = await kms.issue({ scope: ['kms:read_key'] });
    expect((await other.api('/v1/keys', { token })).status).toBe(200);
    await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: admin });
    expect((await other.api('/v1/keys', { token })).status).toBe(401);
  });
});

describe('the audit over HTTP', () => {
  it('has filters and pages, and its head is the last record', async () => {
    await using kms = await startKms();
    const token = await kms.fullToken();
    for (const name of ['a', 'b']) await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
    await kms.internal('/v1/export/a', { token });
    await kms.internal('/v1/export/b');
    await kms.records();
    const get = async (query: string) =>
      auditPageSchema.strict().parse((await kms.api(`/v1/audit?${query}`, { token })).json());
    expect((await get('severity=CRITICAL')).records.map(({ key, outcome }) => [key, outcome])).toEqual([
      [undefined, 'allowed'],
      ['a', 'allowed'],
      ['b', 'refused'],
    ]);
    expect((await get('key=b')).records.map(({ action }) => action)).toEqual(['key.create', 'key.export']);
    expect((await get('actor=tester&key=a')).records).toHaveLength(2);
    expect((await get(`to=${encodeURIComponent('2020-01-01T02:00:00+02:00')}`)).records).toEqual([]);
    expect((await get('from=2020-01-01T00:00:00Z&limit=500')).records.length).toBeGreaterThan(4);
    const first = await get('key=b&limit=1');
    expect(first.next_cursor).toBeDefined();
    expect((await get(`key=b&limit=1&cursor=${first.next_cursor}`)).records).toMatchObject([
      { action: 'key.export' },
    ]);
    const head = (await kms.api('/v1/audit/head', { token })).json();
    expect(head).toEqual(await kms.store.auditHead());
  });
});
