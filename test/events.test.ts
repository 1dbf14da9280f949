import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EventReader } from './support/event-reader.ts';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let admin: string;
let token: string;
/** Each test has its own project, and the log from here on. */
let project: string;
let tests = 0;
let logFrom = 0;
beforeAll(async () => {
  installation = await Installation.start();
  const scope = ['kms:admin', 'kms:rotate_key', 'kms:read_key', 'kms:manage_key'] as const;
  admin = await installation.issue({ sub: 'ops', typ: 'service', scope: [...scope], keys: ['*'] });
});
afterAll(() => installation[Symbol.asyncDispose]());
beforeEach(async () => {
  project = `p${tests++}`;
  logFrom = installation.log.text.length;
  token = await installation.client();
  await events('live');
});

const ready = async () => (await call(installation.url, '/ready')).json();
const events = (state: 'live' | 'down') => expect.poll(async () => (await ready())['kms_events']).toBe(state);
const path = (id: string) => `/v1/projects/${project}/collections/c/documents/${id}`;
const put = (id: string, by = token) =>
  call(installation.url, path(id), { method: 'PUT', token: by, body: '{}' });
const read = async (by: string) => (await call(installation.url, path('a'), { token: by })).status;
const jtiOf = (text: string) =>
  (JSON.parse(Buffer.from(String(text.split('.')[1]), 'base64url').toString()) as { jti: string }).jti;
const revoke = (text: string) =>
  call(installation.kms.apiUrl, `/v1/tokens/${jtiOf(text)}`, { method: 'DELETE', token: admin });
/** Revokes a token as the command line does, whether or not the service runs. */
const revokeByCli = (text: string) =>
  withKms(installation.kmsEnvironment, ({ tokens }) => tokens.revoke(jtiOf(text), { actor: 'cli' }));
const change = (what: 'rotate' | 'disable') =>
  call(installation.kms.apiUrl, `/v1/keys/${project}-dek/${what}`, { method: 'POST', token: admin });
const versions = async () =>
  (
    JSON.parse(await installation.stored.projectFile(project)) as { versions: { version: number }[] }
  ).versions.map(({ version }) => version);

describe('a change in BunKMS takes effect in Bundoc', () => {
  it('a revocation of a token takes effect in Bundoc at once, whichever process revoked it, for no other token', async () => {
    await put('a');
    const [one, other] = [await installation.client(), await installation.client()];
    expect([await read(one), await read(other)]).toEqual([200, 200]);
    expect((await revoke(one)).status).toBe(204);
    await expect.poll(() => read(one)).toBe(401);
    await revokeByCli(other);
    await expect.poll(() => read(other)).toBe(401);
    expect(await read(token)).toBe(200);
  });

  it('a revoked token, or a disabled key of its project, ends a stream of changes at once', async () => {
    await put('a');
    const one = await installation.client();
    const url = `${installation.url}/v1/projects/${project}/changes`;
    using first = await EventReader.open(url, one);
    using second = await EventReader.open(url, token);
    for (const reader of [first, second]) await reader.until(() => reader.changes.length === 1);
    expect((await revoke(one)).status).toBe(204);
    await first.ended();
    expect(second.isEnded).toBe(false);
    await change('disable');
    await second.ended();
    await expect(EventReader.open(url, token)).rejects.toThrow('project_disabled');
  });

  it('a rotation of a key takes effect in Bundoc at once, without a refused request', async () => {
    await put('a');
    expect(await versions()).toEqual([1]);
    expect((await change('rotate')).status).toBe(200);
    let writes = 0;
    await expect
      .poll(async () => {
        expect((await put(`during-${writes++}`)).status).toBe(201);
        return versions();
      })
      .toEqual([1, 2]);
    expect(await read(token)).toBe(200);
  });

  it('after an outage, every change during it takes effect, and each reason of the outage is logged once', async () => {
    await put('a');
    const revoked = await installation.client();
    expect(await read(revoked)).toBe(200);
    await installation.stopKms();
    await events('down');
    await revokeByCli(revoked);
    // The key is cached and tokens are verified by signature, so Bundoc cannot know of this revocation yet.
    expect([await read(revoked), (await ready())['status']]).toEqual([200, 'ready']);
    await installation.startKms();
    await events('live');
    expect(await read(revoked)).toBe(401);
    expect(await read(token)).toBe(200);
    const logged = installation.log.text
      .slice(logFrom)
      .split('\n')
      .filter((line) => line.includes('no events from BunKMS'));
    const reasons = logged.map((line) => (JSON.parse(line) as { err: { message: string } }).err.message);
    expect(reasons).toContain('the stream has ended');
    expect(new Set(reasons).size).toBe(reasons.length);
  });

  it('after a restart of Bundoc, a token that was revoked before stays refused', async () => {
    await put('a');
    const revoked = await installation.client();
    await revoke(revoked);
    await installation.stopBundoc();
    await installation.startBundoc();
    await events('live');
    expect([await read(revoked), await read(token)]).toEqual([401, 200]);
  });

  it('after a gap in the events, Bundoc fetches all keys again', async () => {
    await put('a');
    await installation.stopKms();
    await events('down');
    await withKms(installation.kmsEnvironment, async ({ store }) => {
      const time = new Date().toISOString();
      const record = { time, severity: 'INFO', action: 'token.issue', outcome: 'allowed' } as const;
      for (let n = 0; n < 11; n++) await store.appendAudit(Array.from({ length: 100 }, () => record));
    });
    const exportsOf = () =>
      withKms(installation.kmsEnvironment, async ({ store }) => {
        const { items } = await store.listAudit({ key: `${project}-dek`, limit: 100 });
        return items.filter(({ action, outcome }) => action === 'key.export' && outcome === 'allowed').length;
      });
    const before = await exportsOf();
    await installation.startKms();
    await events('live');
    await expect.poll(exportsOf).toBe(before + 1);
    expect(await read(token)).toBe(200);
  });
});

describe('the lease of a key', () => {
  it('ends the use of the key although Bundoc would cache it for longer', async () => {
    const clock = new MovedClock();
    await using hurried = await Installation.start({
      clock,
      kmsEnvironment: { BUNKMS_LEASE_TTL_MS: '60000' },
    });
    const client = await hurried.client();
    const ask = async (method: 'PUT' | 'GET') => {
      const body = method === 'PUT' ? { body: '{}' } : {};
      return (await call(hurried.url, path('a'), { method, token: client, ...body })).status;
    };
    expect(await ask('PUT')).toBe(201);
    await hurried.stopKms();
    clock.movedMs = 30_000;
    expect(await ask('GET')).toBe(200);
    clock.movedMs = 60_500;
    expect(await ask('GET')).toBe(503);
  });
});
