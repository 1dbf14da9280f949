import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FaultyStore } from './support/faulty-store.ts';
import { startKms, type TestKms } from './support/kms.ts';

/** Holds calls of a method of the store until it is opened. */
class Gate {
  readonly #opened = Promise.withResolvers<void>();
  readonly seen: unknown[][] = [];

  readonly pass = async (real: (...args: unknown[]) => unknown, ...args: unknown[]) => {
    this.seen.push(args);
    await this.#opened.promise;
    return real(...args);
  };

  open(): void {
    this.#opened.resolve();
  }
}

describe('reads of one token', () => {
  let faulty: FaultyStore;
  let kms: TestKms;
  let admin: string;
  const reader = async () => (await kms.issue({ scope: ['kms:read_key'], keys: ['*'] })).token;
  const get = async (path: string, token: string) => (await kms.api(path, { token })).status;
  const flood = (path: string, token: string) => Array.from({ length: 40 }, () => get(path, token));
  /** Resolves when `count` requests wait at the gate in all. */
  const waiting = (count: number) =>
    expect
      .poll(async () => {
        const { text } = await kms.internal('/metrics');
        return Number(/^bunkms_share_waiting\{share="places"\} (\d+)$/m.exec(text)?.[1]);
      })
      .toBe(count);

  beforeEach(async () => {
    faulty = new FaultyStore();
    // No request waits too long by this clock.
    kms = await startKms({ clock: new FakeClock(), decorate: faulty.decorate });
    admin = await kms.fullToken();
    for (const name of ['a-dek', 'b-dek'])
      await kms.api('/v1/keys', { token: admin, body: { name, type: 'aes-256' } });
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  it.each([
    ['/v1/keys', 'listKeys', 8],
    ['/v1/keys/a-dek', 'findKey', 32],
    ['/v1/keys/a-dek/leases', 'listExports', 8],
    ['/v1/audit', 'listAudit', 8],
    ['/v1/audit/head', 'auditHead', 32],
    ['/v1/tokens', 'listTokens', 8],
  ] as const)(
    'wait at %s, so that the store has few of them before any other call',
    async (path, name, max) => {
      const gate = new Gate();
      faulty.replaced[name] = gate.pass;
      const answers = flood(path, admin);
      await waiting(40 - max);
      expect(gate.seen).toHaveLength(max);
      gate.open();
      expect(new Set(await Promise.all(answers))).toEqual(new Set([200]));
    },
  );

  it('do not delay those of other tokens, exports, creations and revocations', async () => {
    const { token: doomed, jti } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { token: exporter } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
    const gate = new Gate();
    faulty.replaced.listKeys = gate.pass;
    const answers = flood('/v1/keys', await reader());
    await waiting(32);
    const other = get('/v1/keys', await reader());
    await expect.poll(() => gate.seen.length).toBe(9);
    expect(await get('/v1/keys/a-dek', doomed)).toBe(200);
    expect((await kms.internal('/v1/export/a-dek', { token: exporter })).status).toBe(200);
    const body = { name: 'c-dek', type: 'aes-256' };
    expect((await kms.api('/v1/keys', { token: admin, body })).status).toBe(201);
    expect((await kms.api('/v1/audit/verify', { token: admin, body: {} })).status).toBe(200);
    expect((await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: admin })).status).toBe(204);
    expect(await get('/v1/keys/a-dek', doomed)).toBe(401);
    gate.open();
    expect(new Set(await Promise.all([other, ...answers]))).toEqual(new Set([200]));
  });

  it('reads by more tokens than there are places do not delay exports', async () => {
    const { token: exporter } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
    const gate = new Gate();
    faulty.replaced.listKeys = gate.pass;
    const answers = flood('/v1/keys', await reader());
    await waiting(32);
    for (let n = 0; n < 10; n++) answers.push(get('/v1/keys', await reader()));
    await waiting(34);
    expect(gate.seen).toHaveLength(16);
    for (const name of ['a-dek', 'b-dek'])
      expect((await kms.internal(`/v1/export/${name}`, { token: exporter })).status).toBe(200);
    gate.open();
    expect(new Set(await Promise.all(answers))).toEqual(new Set([200]));
  });

  it('each have a record before they are answered, and few of these records wait at a time', async () => {
    const token = await reader();
    const gate = new Gate();
    faulty.replaced.appendAudit = gate.pass;
    const answers = flood('/v1/keys/a-dek', token);
    await waiting(8);
    gate.open();
    expect(new Set(await Promise.all(answers))).toEqual(new Set([200]));
    const reads = (await kms.records()).filter(({ action }) => action === 'key.read');
    expect(reads).toHaveLength(40);
    expect(Math.max(...gate.seen.map(([records]) => (records as unknown[]).length))).toBeLessThanOrEqual(32);
  });
});

it('a page of keys is read in steps, so that other calls do not wait for all of it', async () => {
  const faulty = new FaultyStore();
  await using kms = await startKms({ decorate: faulty.decorate });
  const token = await kms.fullToken();
  const names = Array.from({ length: 120 }, (_, n) => `k${String(n).padStart(3, '0')}-dek`);
  for (const name of names) await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } });
  const gate = new Gate();
  gate.open();
  faulty.replaced.listKeys = gate.pass;
  const first = (await kms.api('/v1/keys?limit=110', { token })).json();
  expect(first.keys.map(({ name }: { name: string }) => name)).toEqual(names.slice(0, 110));
  expect(gate.seen.map(([, page]) => (page as { limit: number }).limit)).toEqual([50, 50, 10]);
  const rest = (await kms.api(`/v1/keys?limit=110&cursor=${first.next_cursor}`, { token })).json();
  expect(rest.keys.map(({ name }: { name: string }) => name)).toEqual(names.slice(110));
  expect(rest.next_cursor).toBeUndefined();
  const [record] = (await kms.records()).filter(({ action }) => action === 'key.list');
  expect(record?.detail).toEqual({ count: 110 });
});

it('a refused export is answered once its record is durable', async () => {
  const faulty = new FaultyStore();
  await using kms = await startKms({ decorate: faulty.decorate });
  const { token } = await kms.issue({ scope: ['kms:export_key'], keys: ['mine-dek'] });
  const gate = new Gate();
  faulty.replaced.appendAudit = gate.pass;
  let isAnswered = false;
  const answer = kms.internal('/v1/export/yours-dek', { token }).finally(() => {
    isAnswered = true;
  });
  await expect.poll(() => gate.seen.length).toBe(1);
  // Another request of the same process has its answer in the meantime.
  expect((await kms.internal('/health')).status).toBe(200);
  expect(isAnswered).toBe(false);
  gate.open();
  expect((await answer).status).toBe(403);
  expect((await kms.records()).at(-1)).toMatchObject({ severity: 'CRITICAL', outcome: 'refused' });
});
