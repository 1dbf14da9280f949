import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { IDEMPOTENCY_MS } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Answer } from './support/http.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { infoIn, KeyCalls } from './support/lifecycle.ts';

const NAME = 'a-dek';

let clock: FakeClock;
let kms: TestKms;
let keys: KeyCalls;
beforeEach(async () => {
  clock = new FakeClock();
  kms = await startKms({ clock });
  keys = await KeyCalls.of(kms);
});
afterEach(() => kms[Symbol.asyncDispose]());

const etagOf = (answer: Answer) => String(answer.headers['etag']);

/** Every change with a precondition, and the preparation with which it succeeds. */
const CHANGES: [string, (headers: Record<string, string>) => Promise<Answer>, (() => Promise<unknown>)?][] = [
  ['rotate', (headers) => keys.post(NAME, 'rotate', headers)],
  ['enable', (headers) => keys.post(NAME, 'enable', headers), () => keys.post(NAME, 'disable')],
  ['disable', (headers) => keys.post(NAME, 'disable', headers)],
  ['restore', (headers) => keys.post(NAME, 'restore', headers), () => keys.delete(NAME)],
  ['update', (headers) => keys.patch(NAME, { rotate_after_days: 30 }, headers)],
  ['schedule deletion', (headers) => keys.delete(NAME, '', headers)],
  ['destroy', (headers) => keys.shred(NAME, headers)],
  ['destroy version', (headers) => keys.destroyVersion(NAME, 1, headers)],
];

describe('If-Match', () => {
  beforeEach(async () => {
    await keys.make(NAME, 'enabled');
  });

  it.each(CHANGES)(
    'lets %s take effect only on the state that its caller saw',
    async (_what, change, prepare) => {
      await prepare?.();
      const present = etagOf(await keys.read(NAME));
      const stale = present.replace(/\d+"$/, '1"');
      const before = await kms.store.auditHead();
      for (const tag of [`W/${present}`, stale])
        expect((await change({ 'if-match': tag })).json()).toMatchObject({ status: 412 });
      const refusal = await change({ 'if-match': stale });
      expect(refusal.json()).toMatchObject({ status: 412, code: 'precondition_failed' });
      expect(refusal.headers['etag']).toBeUndefined();
      expect((await kms.store.findKey(NAME, 'current'))?.record?.revision).toBe(
        Number(/(\d+)"$/.exec(present)?.[1]),
      );
      expect((await kms.store.auditHead()).seq).toBeLessThanOrEqual(before.seq + 3);
      const done = await change({ 'if-match': `"other", ,${present}` });
      expect(done.status, done.text).toBeLessThan(300);
      expect(etagOf(done)).not.toBe(present);
      expect(etagOf(done)).toMatch(/^"[0-9a-f-]{36}-\d+"$/);
      if (done.json().state !== 'destroyed') expect(etagOf(await keys.read(NAME))).toBe(etagOf(done));
    },
  );

  it.each(CHANGES)('If-Match: * lets %s take effect on any key', async (_what, change, prepare) => {
    await prepare?.();
    expect((await change({ 'if-match': '*' })).status).toBeLessThan(300);
  });

  it.each(['', 'x', '"a" "b"', '"a', Array.from({ length: 33 }, () => '"a"').join()])(
    'If-Match: %j is refused as invalid',
    async (value) => {
      const answer = await keys.post(NAME, 'disable', { 'if-match': value });
      expect(answer.json()).toMatchObject({ status: 400, errors: [{ path: 'headers.If-Match' }] });
    },
  );

  it('lets one of many callers that saw the same state change it', async () => {
    const seen = etagOf(await keys.read(NAME));
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        keys.patch(NAME, { rotate_after_days: index + 1 }, { 'if-match': seen }),
      ),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19);
  });
});

describe('an Idempotency-Key', () => {
  const create = (idempotencyKey: string, more: object = {}, name = NAME, as = keys) =>
    as.create(name, more, { 'idempotency-key': idempotencyKey });
  const creations = async () => (await kms.records()).filter(({ action }) => action === 'key.create');

  it('creates one key from many concurrent requests through two services, and gives all the same answer', async () => {
    await using other = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const otherKeys = keys.at(other);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => create('k', {}, NAME, index % 2 === 0 ? keys : otherKeys)),
    );
    for (const answer of answers) {
      expect([answer.status, answer.text]).toEqual([201, answers[0]?.text]);
      expect(answer.headers['location']).toBe(`/v1/keys/${NAME}`);
      expect(etagOf(answer)).toBe(etagOf(answers[0] ?? answer));
    }
    expect(await creations()).toHaveLength(1);
  });

  it('repeats the first answer for a day, even after changes of the key and a restart', async () => {
    const wanted = { exportable: false, rotate_after_days: 30 };
    const first = await create('k', wanted);
    await keys.post(NAME, 'rotate');
    await keys.patch(NAME, { rotate_after_days: null });
    await keys.shred(NAME);
    await kms.running.close();
    clock.advance(IDEMPOTENCY_MS);
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const later = keys.at(again);
    expect((await create('k', wanted, NAME, later)).text).toBe(first.text);
    clock.advance(1);
    expect((await create('k', wanted, NAME, later)).json()).toMatchObject({ code: 'key_destroyed' });
    expect((await create('k', wanted, 'b-dek', later)).status).toBe(201);
  });

  it('stands for one request: another one with it is refused and creates nothing', async () => {
    infoIn(await create('k'));
    for (const answer of [
      await create('k', { exportable: false }),
      await create('k', { rotate_after_days: 7 }),
      await create('k', {}, 'b-dek'),
    ])
      expect(answer.json()).toMatchObject({ status: 422, code: 'idempotency_mismatch' });
    // A request with explicit defaults is the same request.
    expect((await create('k', { exportable: true, rotate_after_days: null })).status).toBe(201);
    expect(await creations()).toHaveLength(1);
  });

  it('an Idempotency-Key on two concurrent requests creates one key', async () => {
    const answers = await Promise.all(['a-dek', 'b-dek', 'c-dek'].map((name) => create('k', {}, name)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 422, 422]);
    expect(await creations()).toHaveLength(1);
  });

  it('is separate for each subject, and without it a name can be created once', async () => {
    infoIn(await create('k'));
    const { token } = await kms.issue({ sub: 'somebody', scope: ['kms:create_key'], keys: ['*'] });
    const headers = { 'idempotency-key': 'k' };
    const body = { name: 'b-dek', type: 'aes-256' };
    expect((await kms.api('/v1/keys', { token, body, headers })).status).toBe(201);
    expect((await kms.api('/v1/keys', { token, body: { ...body, name: NAME } })).json()).toMatchObject({
      code: 'key_exists',
    });
    expect((await keys.create(NAME)).json()).toMatchObject({ code: 'key_exists' });
  });

  describe('of a tenant that chooses the subjects of its tokens', () => {
    const body = { typ: 'client', scope: ['kms:create_key'], keys: ['*'], projects: [] };
    const tenant = async () => {
      const may_issue = { scopes: ['kms:create_key' as const], projects: [], keys: ['*'], ttl_s: 600 };
      const { token } = await kms.issue({ sub: 'shop', scope: ['kms:issue_client'], may_issue });
      return async (sub: string) =>
        String((await kms.api('/v1/tokens', { token, body: { ...body, sub } })).json().token);
    };
    const send = (token: string, name: string) => {
      const headers = { 'idempotency-key': 'k' };
      return kms.api('/v1/keys', { token, headers, body: { name, type: 'aes-256' } });
    };

    it('takes no key from another tenant or an operator with the same subject', async () => {
      const [one, other] = [await tenant(), await tenant()];
      expect((await send(await one('tester'), 'taken-dek')).status).toBe(201);
      // The subject of `keys` is `tester`, too.
      infoIn(await create('k'));
      expect((await send(await other('tester'), 'b-dek')).status).toBe(201);
    });

    it('stays with its subject when it gets a new token, and is not that of its other subjects', async () => {
      const issue = await tenant();
      const first = await send(await issue('ada'), NAME);
      expect(first.status).toBe(201);
      expect((await send(await issue('ada'), NAME)).text).toBe(first.text);
      expect((await send(await issue('bob'), 'b-dek')).status).toBe(201);
    });

    it('stays with a service whose token is renewed', async () => {
      const { token } = await kms.issue({ sub: 'shop', scope: ['kms:create_key'], keys: ['*'] });
      const first = await send(token, NAME);
      const renewed = await kms.internal('/v1/tokens/renew', { method: 'POST', token });
      expect((await send(String(renewed.json().token), NAME)).text).toBe(first.text);
    });
  });

  it.each(['', ' ', 'a b', 'é', 'x'.repeat(256)])('of %j is refused as invalid', async (value) => {
    const answer = await create(value);
    expect(answer.json()).toMatchObject({ status: 400, errors: [{ path: 'headers.idempotency-key' }] });
    expect(await creations()).toHaveLength(0);
  });

  it('is not stored, and neither is its plain hash', async () => {
    infoIn(await create('a-telling-idempotency-key'));
    const hash = createHash('sha256').update('a-telling-idempotency-key').digest('hex');
    for (const file of readdirSync(kms.dataDir)) {
      const bytes = readFileSync(join(kms.dataDir, file));
      expect(bytes.includes('a-telling-idempotency-key')).toBe(false);
      expect(bytes.includes(hash)).toBe(false);
    }
  });
});
