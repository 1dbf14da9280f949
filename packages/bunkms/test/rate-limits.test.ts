import { randomUUID } from 'node:crypto';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startKms, type TestKms } from './support/kms.ts';

const LIMITS = {
  exportsPerToken: 0,
  exportsPerKey: 0,
  cryptoPerToken: 0,
  cryptoPerKey: 0,
  renewalsPerMinute: 0,
  issuesPerToken: 0,
  readsPerToken: 0,
  creationsPerToken: 0,
  destructionsPerToken: 0,
};

describe('rate limits', () => {
  let clock: FakeClock;
  let kms: TestKms;
  const start = async (limits: Partial<typeof LIMITS>) => {
    kms = await startKms({ clock, config: { limits: { ...LIMITS, ...limits } } });
    const token = await kms.fullToken();
    for (const name of ['a-dek', 'b-dek'])
      await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
  };
  const reader = async () => (await kms.issue({ scope: ['kms:export_key'], keys: ['*-dek'] })).token;
  const statuses = async (calls: readonly (readonly [name: string, token: string])[]) => {
    const answers = [];
    for (const [name, token] of calls) answers.push(await kms.internal(`/v1/export/${name}`, { token }));
    return answers.map(({ status }) => status);
  };
  const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

  beforeEach(() => {
    clock = new FakeClock();
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  it('limit the exports of one token with its renewals, and do not affect others', async () => {
    await start({ exportsPerToken: 1 });
    const [one, other] = [await reader(), await reader()];
    expect(await statuses(times(6, ['a-dek', one]))).toEqual([200, 200, 200, 200, 200, 429]);
    const renewed = (await kms.internal('/v1/tokens/renew', { method: 'POST', token: one })).json().token;
    expect(
      await statuses([
        ['b-dek', renewed],
        ['a-dek', other],
      ]),
    ).toEqual([429, 200]);
    clock.advance(1_000);
    expect(await statuses([['b-dek', renewed]])).toEqual([200]);
  });

  it('limit the exports of a tenant together with those of the tokens that it issues', async () => {
    await start({ exportsPerToken: 1 });
    const limit = {
      scopes: ['kms:export_key' as const],
      keys: ['*-dek'],
      projects: ['project-a'],
      ttl_s: 600,
    };
    const { token: tenant } = await kms.issue({
      scope: ['kms:admin', 'kms:export_key'],
      keys: ['*-dek'],
      may_issue: limit,
    });
    const issued = async () => {
      const body = { sub: 'app', typ: 'service', scope: ['kms:export_key'], keys: ['*-dek'] };
      return (await kms.api('/v1/tokens', { token: tenant, body })).json().token as string;
    };
    const [one, other] = [await issued(), await issued()];
    const calls = [tenant, one, other].flatMap((token) => times(2, ['a-dek', token] as const));
    expect(await statuses(calls)).toEqual([200, 200, 200, 200, 200, 429]);
    expect(await statuses([['a-dek', await reader()]])).toEqual([200]);
  });

  it('limit the destructions of one token with its renewals: ten at once, then one per second', async () => {
    await start({ destructionsPerToken: 1 });
    const admin = await kms.fullToken();
    const names = Array.from({ length: 12 }, (_, n) => `k${n}-dek`);
    for (const name of names) await kms.api('/v1/keys', { token: admin, body: { name, type: 'aes-256' } });
    const destroyer = async () =>
      (await kms.issue({ scope: ['kms:destroy_key', 'kms:rotate_key'], keys: ['*'] })).token;
    const destroy = async (name: string, token: string) =>
      (await kms.api(`/v1/keys/${name}?pending_days=0&confirm=${name}`, { method: 'DELETE', token })).status;
    const token = await destroyer();
    const statuses: number[] = [];
    for (const name of names.slice(0, 10)) statuses.push(await destroy(name, token));
    expect(statuses).toEqual(times(10, 200));
    const renewed = (await kms.api('/v1/tokens/renew', { method: 'POST', token })).json().token;
    expect(await destroy('k10-dek', renewed)).toBe(429);
    const late = await kms.api('/v1/keys/k10-dek', { method: 'DELETE', token });
    expect([late.status, late.headers['retry-after']]).toEqual([429, '1']);
    await kms.api('/v1/keys/k11-dek/rotate', { method: 'POST', token });
    const version = await kms.api('/v1/keys/k11-dek/versions/1?confirm=k11-dek', { method: 'DELETE', token });
    expect(version.status).toBe(429);
    expect(await destroy('a-dek', await destroyer())).toBe(200);
    clock.advance(1_000);
    expect(await destroy('k10-dek', renewed)).toBe(200);
    expect(await destroy('k11-dek', renewed)).toBe(429);
    expect((await kms.api('/v1/keys/k11-dek', { token: admin })).json()).toMatchObject({ state: 'enabled' });
  });

  /** A key of a storage, whose intent each call repeats for a client of that storage. */
  async function startShredding() {
    await start({ destructionsPerToken: 1 });
    const { token } = await kms.issue({ scope: ['kms:create_key', 'kms:shred_key'], keys: ['*'] });
    const acting = { storage: randomUUID(), generation: randomUUID() };
    const post = (path: string, body: object) => kms.internal(path, { token, body });
    await post(`/v1/storages/${acting.storage}/advance`, { from: [], to: acting.generation });
    await post('/v1/keys', { name: 's-dek', type: 'aes-256', ...acting });
    const intend = (client: string) => post('/v1/keys/s-dek/deletion-intent', { ...acting, client });
    const intents = async (clients: readonly string[]) => {
      const answers: number[] = [];
      for (const client of clients) answers.push((await intend(client)).status);
      return answers;
    };
    const shred = (receipt: object) => post('/v1/keys/s-dek/shred', { ...acting, receipt });
    return { intend, intents, shred };
  }

  it('limit intents to shred by the client that the storage names, and not what follows them', async () => {
    const { intend, intents, shred } = await startShredding();
    expect(await intents(times(10, 'one'))).toEqual(times(10, 200));
    const late = await intend('one');
    expect([late.status, late.headers['retry-after'], late.json().code]).toEqual([429, '1', 'rate_limited']);
    const other = await intend('other');
    expect(other.status).toBe(200);
    clock.advance(1_000);
    expect(await intents(['one', 'one'])).toEqual([200, 429]);
    for (let n = 0; n < 50; n++) expect((await shred(other.json().receipt)).status).toBe(200);
  });

  it('limit all clients of a storage to four times the rate of one: then one within its own gets 503', async () => {
    const { intend, intents } = await startShredding();
    for (const client of ['a', 'b', 'c', 'd'])
      expect(await intents(times(10, client))).toEqual(times(10, 200));
    const full = await intend('e');
    expect([full.status, full.headers['retry-after'], full.json()]).toMatchObject([
      ...[503, '1', { code: 'overloaded', detail: 'the storage has no deletions to spare' }],
    ]);
    expect(await intents(['a'])).toEqual([429]);
    clock.advance(250);
    // A refused intent counts for nobody.
    expect(await intents(['e', 'e'])).toEqual([200, 503]);
    clock.advance(60_000);
    expect(await intents(times(11, 'e'))).toEqual([...times(10, 200), 429]);
  });

  it('limit the exports of one key for all callers', async () => {
    await start({ exportsPerKey: 1 });
    const [one, other] = [await reader(), await reader()];
    expect(await statuses(times(5, ['a-dek', one]))).toEqual(times(5, 200));
    expect(
      await statuses([
        ['a-dek', other],
        ['b-dek', other],
      ]),
    ).toEqual([429, 200]);
  });

  it('count a refused export neither for the caller nor for the key, and name the longer wait', async () => {
    await start({ exportsPerKey: 1, exportsPerToken: 2 });
    const [one, other] = [await reader(), await reader()];
    expect(await statuses(times(5, ['a-dek', one]))).toEqual(times(5, 200));
    // The key refuses; the caller keeps its rate for other keys.
    expect(await statuses(times(20, ['a-dek', other]))).toEqual(times(20, 429));
    expect(await statuses(times(5, ['b-dek', other]))).toEqual(times(5, 200));
    clock.advance(5_000);
    // The caller refuses; the key keeps its rate for other callers.
    expect(await statuses(times(5, ['a-dek', one]))).toEqual(times(5, 200));
    expect(await statuses(times(5, ['b-dek', one]))).toEqual(times(5, 200));
    clock.advance(400);
    const longest = await kms.internal('/v1/export/a-dek', { token: one });
    expect([longest.status, longest.headers['retry-after']]).toEqual([429, '1']);
    expect(await statuses(times(20, ['b-dek', one]))).toEqual(times(20, 429));
    clock.advance(600);
    expect(await statuses([['b-dek', other]])).toEqual([200]);
  });

  it('count a refused batch neither for the caller nor for the key', async () => {
    await start({ cryptoPerKey: 1, cryptoPerToken: 10 });
    const { token } = await kms.issue({ scope: ['kms:encrypt'], keys: ['*'] });
    const encrypt = async (key: string, count: number) =>
      (await kms.api(`/v1/encrypt/${key}`, { token, body: { items: times(count, {}) } })).status;
    expect(await encrypt('a-dek', 5)).toBe(200);
    for (let n = 0; n < 5; n++) expect(await encrypt('a-dek', 100)).toBe(429);
    expect(await encrypt('b-dek', 1)).toBe(200);
  });

  it('limit the storage advances of one token with its renewals: 1000 at once, then ten per second', async () => {
    await start({});
    const service = async () => (await kms.issue({ scope: ['kms:create_key'], keys: ['*-dek'] })).token;
    const [token, other] = [await service(), await service()];
    const to = randomUUID();
    const path = `/v1/storages/${randomUUID()}/advance`;
    const advance = async (by: string) =>
      (await kms.internal(path, { token: by, body: { from: [], to } })).status;
    const first: number[] = [];
    for (let n = 0; n < 20; n++)
      first.push(...(await Promise.all(Array.from({ length: 50 }, () => advance(token)))));
    expect(new Set(first)).toEqual(new Set([200]));
    const renewed = (await kms.internal('/v1/tokens/renew', { method: 'POST', token })).json().token;
    expect([await advance(renewed), await advance(other)]).toEqual([429, 200]);
    clock.advance(100);
    expect([await advance(renewed), await advance(token)]).toEqual([200, 429]);
  });

  it('refuse with Retry-After and a record like every refusal, and reveal nothing about the key', async () => {
    await start({ exportsPerKey: 1 });
    const token = await reader();
    const refusals = [];
    for (const name of ['a-dek', 'unknown-dek']) {
      await statuses(times(5, [name, token]));
      const answer = await kms.internal(`/v1/export/${name}`, { token });
      const { request_id: _, ...problem } = answer.json();
      refusals.push(JSON.stringify([answer.status, answer.headers['retry-after'], problem]));
    }
    expect(new Set(refusals).size).toBe(1);
    expect(refusals[0]).toContain('"code":"rate_limited"');
    expect(refusals[0]).toContain('429,"1"');
    const records = (await kms.records()).filter(({ code }) => code === 'rate_limited');
    expect(records).toHaveLength(2);
    expect(records[0]).toMatchObject({
      severity: 'CRITICAL',
      action: 'key.export',
      outcome: 'refused',
      key: 'a-dek',
    });
  });

  it('apply only to authorized callers: others are refused as usual and use up nothing', async () => {
    await start({ exportsPerKey: 1, exportsPerToken: 1 });
    const stranger = (await kms.issue({ scope: ['kms:export_key'], keys: ['other-*'] })).token;
    expect(await statuses(times(20, ['a-dek', stranger]))).toEqual(times(20, 403));
    expect(await statuses([['a-dek', await reader()]])).toEqual([200]);
  });

  it.each(['cryptoPerToken', 'cryptoPerKey'] as const)(
    'limit the encrypted and decrypted items (%s), also in batches, whose surplus counts afterwards',
    async (limit) => {
      await start({ [limit]: 10 });
      const { token } = await kms.issue({ scope: ['kms:encrypt', 'kms:decrypt'], keys: ['*'] });
      const ask = async (operation: string, count: number) => {
        const items = times(count, {});
        return (await kms.api(`/v1/${operation}/a-dek`, { token, body: { items } })).status;
      };
      expect(await ask('encrypt', 40)).toBe(200);
      expect(await ask('decrypt', 100)).toBe(200);
      expect(await ask('rewrap', 1)).toBe(429);
      const dataKey = () => kms.api('/v1/data-key/a-dek', { token, body: {} });
      expect((await dataKey()).status).toBe(429);
      clock.advance(9_000);
      expect(await ask('encrypt', 1)).toBe(429);
      clock.advance(1_000);
      expect(await ask('encrypt', 1)).toBe(200);
    },
  );

  it('limit the reads of one token with its renewals, a page by its items, and do not affect others', async () => {
    await start({ readsPerToken: 2 });
    const scope = ['kms:read_key', 'kms:audit', 'kms:admin'] as const;
    const issue = async () => (await kms.issue({ scope: [...scope], keys: ['*'] })).token;
    const [one, other] = [await issue(), await issue()];
    const get = async (path: string, token = one) => (await kms.api(path, { token })).status;
    // Ten at once, of which the page of 200 is four.
    expect(await get('/v1/keys?limit=200')).toBe(200);
    const singly = ['/v1/keys/a-dek', '/v1/keys/a-dek/leases?limit=50', '/v1/tokens?limit=50'];
    for (const path of [...singly, '/v1/audit?limit=50', '/v1/audit/head', '/v1/keys?limit=1'])
      expect([path, await get(path)]).toEqual([path, 200]);
    for (const path of [...singly, '/v1/audit', '/v1/audit/head', '/v1/keys'])
      expect([path, await get(path)]).toEqual([path, 429]);
    const renewed = (await kms.api('/v1/tokens/renew', { method: 'POST', token: one })).json().token;
    const refused = await kms.api('/v1/keys/a-dek', { token: renewed });
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1']);
    expect(await get('/v1/keys/a-dek', other)).toBe(200);
    clock.advance(500);
    expect([await get('/v1/keys/a-dek'), await get('/v1/keys/a-dek')]).toEqual([200, 429]);
  });

  it('limit the keys that one token creates: five seconds of them at once', async () => {
    await start({ creationsPerToken: 1 });
    const creator = async () => (await kms.issue({ scope: ['kms:create_key'], keys: ['*'] })).token;
    const [one, other] = [await creator(), await creator()];
    const create = async (name: string, token: string) =>
      (await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } })).status;
    const made: number[] = [];
    for (let n = 0; n < 6; n++) made.push(await create(`n${n}-dek`, one));
    expect(made).toEqual([...times(5, 201), 429]);
    expect(await create('n5-dek', other)).toBe(201);
    clock.advance(1_000);
    expect(await create('n6-dek', one)).toBe(201);
  });

  it('limit the renewals of one family, and a refused renewal creates no token', async () => {
    await start({ renewalsPerMinute: 2 });
    let token = await reader();
    const renew = () => kms.internal('/v1/tokens/renew', { method: 'POST', token });
    for (let n = 0; n < 2; n++) token = (await renew()).json().token;
    const before = (await kms.store.counts()).tokens;
    expect(await renew()).toMatchObject({ status: 429, headers: { 'retry-after': '30' } });
    expect((await kms.store.counts()).tokens).toBe(before);
    clock.advance(30_000);
    expect((await renew()).status).toBe(201);
  });

  it('limit the tokens that one family issues, and a refused request creates no token', async () => {
    await start({ issuesPerToken: 1 });
    const may_issue = { scopes: ['docs:read' as const], projects: ['project-a'], keys: [], ttl_s: 600 };
    const { token } = await kms.issue({ scope: ['kms:issue_client'], may_issue });
    const body = { sub: 'user', typ: 'client', scope: ['docs:read'], projects: ['project-a'] };
    const issue = () => kms.api('/v1/tokens', { token, body });
    for (let n = 0; n < 5; n++) expect((await issue()).status).toBe(201);
    const before = (await kms.store.counts()).tokens;
    expect(await issue()).toMatchObject({ status: 429, headers: { 'retry-after': '1' } });
    expect((await kms.store.counts()).tokens).toBe(before);
    clock.advance(1_000);
    expect((await issue()).status).toBe(201);
  });
});
