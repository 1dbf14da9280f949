import { randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  CIPHERTEXT_OVERHEAD_BYTES,
  CRYPTO_AAD_BYTES_MAX,
  CRYPTO_ITEMS_MAX,
  decryptAnswerSchema,
  decryptedSchema,
  encryptAnswerSchema,
  encryptedSchema,
  PLAINTEXT_BYTES_MAX,
  rewrapAnswerSchema,
  rewrappedSchema,
} from '@bundoc/shared/contract/crypto';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CIPHERTEXT_OVERHEAD_BYTES as OVERHEAD_OF_CODEC } from '../src/encryption/ciphertext.ts';
import { FaultyStore } from './support/faulty-store.ts';
import type { Answer } from './support/http.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';

const NAME = 'a-dek';
const b64 = (text: string | Buffer) => Buffer.from(text).toString('base64');
const SECRET = b64('a secret of forty-two bytes, to be looked for');

let clock: FakeClock;
let faulty: FaultyStore;
let kms: TestKms;
let keys: KeyCalls;
beforeEach(async () => {
  clock = new FakeClock();
  faulty = new FaultyStore();
  kms = await startKms({ clock, decorate: faulty.decorate });
  keys = await KeyCalls.of(kms);
  await keys.create(NAME);
});
afterEach(() => kms[Symbol.asyncDispose]());

const encrypt = (plaintext_b64 = SECRET, aad_b64?: string, name = NAME) =>
  keys.crypto('encrypt', name, { plaintext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });
const decrypt = (ciphertext_b64: string, aad_b64?: string, name = NAME) =>
  keys.crypto('decrypt', name, { ciphertext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });
const rewrap = (ciphertext_b64: string, aad_b64?: string) =>
  keys.crypto('rewrap', NAME, { ciphertext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });
const ciphertextOf = (answer: Answer) => encryptedSchema.strict().parse(answer.json()).ciphertext_b64;
const withoutId = (answer: Answer) => {
  const { request_id: _, ...problem } = answer.json();
  return JSON.stringify([answer.status, problem, answer.headers['content-type']]);
};

describe('encryption', () => {
  test('decrypts ciphertexts with the AAD of the encryption, on both listeners', async () => {
    for (const aad of [undefined, '', b64('row 7')]) {
      const answer = await encrypt(SECRET, aad);
      expect(answer).toMatchObject({ status: 200, headers: { 'cache-control': 'no-store' } });
      const { ciphertext_b64, version } = encryptedSchema.strict().parse(answer.json());
      expect(version).toBe(1);
      expect(answer.text).not.toContain(SECRET);
      expect(decryptedSchema.strict().parse((await decrypt(ciphertext_b64, aad)).json())).toEqual({
        plaintext_b64: SECRET,
        version: 1,
      });
      const inside = await kms.internal(`/v1/decrypt/${NAME}`, {
        token: await kms.fullToken(),
        body: { ciphertext_b64, ...(aad === undefined ? {} : { aad_b64: aad }) },
      });
      expect(inside.json().plaintext_b64).toBe(SECRET);
    }
  });

  test('gives a different ciphertext each time, with the length in the contract', async () => {
    const made = [ciphertextOf(await encrypt()), ciphertextOf(await encrypt())];
    expect(new Set(made).size).toBe(2);
    const bytes = Buffer.from(SECRET, 'base64').length;
    for (const one of made)
      expect(Buffer.from(one, 'base64')).toHaveLength(bytes + CIPHERTEXT_OVERHEAD_BYTES);
    expect(CIPHERTEXT_OVERHEAD_BYTES).toBe(OVERHEAD_OF_CODEC);
  });

  test('works with a key that is not exportable, and with a key from before a restart', async () => {
    await keys.create('kept-dek', { exportable: false });
    const ciphertext = ciphertextOf(await encrypt(SECRET, undefined, 'kept-dek'));
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const later = await KeyCalls.of(again);
    const answer = await later.crypto('decrypt', 'kept-dek', { ciphertext_b64: ciphertext });
    expect(answer.json()).toEqual({ plaintext_b64: SECRET, version: 1 });
  });

  test('uses the current version, opens older ones, and rewraps them without revealing a plaintext', async () => {
    const aad = b64('row 7');
    const first = ciphertextOf(await encrypt(SECRET, aad));
    await keys.post(NAME, 'rotate');
    expect((await encrypt()).json().version).toBe(2);
    expect((await decrypt(first, aad)).json()).toEqual({ plaintext_b64: SECRET, version: 1 });
    const answer = await rewrap(first, aad);
    const rewrapped = rewrappedSchema.strict().parse(answer.json());
    expect(rewrapped).toMatchObject({ version: 2, from_version: 1 });
    expect(answer.text).not.toContain(SECRET);
    expect((await decrypt(rewrapped.ciphertext_b64, aad)).json()).toEqual({
      plaintext_b64: SECRET,
      version: 2,
    });
    expect((await rewrap(rewrapped.ciphertext_b64, aad)).json()).toMatchObject({ from_version: 2 });
    await keys.destroyVersion(NAME, 1);
    expect((await decrypt(first, aad)).json()).toMatchObject({ status: 410, code: 'key_version_destroyed' });
    expect((await rewrap(first, aad)).json()).toMatchObject({ status: 410, code: 'key_version_destroyed' });
    expect((await decrypt(rewrapped.ciphertext_b64, aad)).status).toBe(200);
  });

  test('fails with the same error for any fault of a ciphertext or its AAD', async () => {
    await keys.post(NAME, 'rotate');
    await keys.create('b-dek');
    const aad = b64('row 7');
    const good = Buffer.from(ciphertextOf(await encrypt(SECRET, aad)), 'base64');
    const changed = (at: number, value?: number) => {
      const bytes = Buffer.from(good);
      bytes[at] = value ?? (bytes[at] ?? 0) ^ 1;
      return bytes;
    };
    const bad = {
      nothing: Buffer.alloc(0),
      noise: randomBytes(100),
      'another format': changed(0, 2),
      'another key': Buffer.from(ciphertextOf(await encrypt(SECRET, aad, 'b-dek')), 'base64'),
      'another id': changed(5),
      'another version': changed(20),
      'version 0': changed(20, 0),
      'a version that does not exist': changed(20, 3),
      'a version beyond the maximum': changed(17, 255),
      'another nonce': changed(22),
      'other bytes': changed(46),
      'another tag': changed(good.length - 1),
      'a byte less': good.subarray(0, -1),
      'a byte more': Buffer.concat([good, Buffer.of(0)]),
      'the header alone': good.subarray(0, 21),
    };
    const seen = new Set<string>();
    for (const bytes of Object.values(bad)) {
      seen.add(withoutId(await decrypt(b64(bytes), aad)));
      seen.add(withoutId(await rewrap(b64(bytes), aad)));
    }
    for (const other of [undefined, b64('row 8'), b64('row 7\0')]) {
      seen.add(withoutId(await decrypt(b64(good), other)));
      seen.add(withoutId(await rewrap(b64(good), other)));
    }
    expect([...seen]).toEqual([expect.stringContaining('"code":"decryption_failed"')]);
    expect((await decrypt(b64(good), aad)).status).toBe(200);
  });

  test('fails without the key, and so does decryption, whatever the ciphertext', async () => {
    for (const operation of ['encrypt', 'decrypt', 'rewrap'] as const) {
      const body = operation === 'encrypt' ? { plaintext_b64: '' } : { ciphertext_b64: '' };
      expect((await keys.crypto(operation, 'none-dek', body)).json()).toMatchObject({
        code: 'key_not_found',
      });
    }
  });

  test('respects a change by another process at once', async () => {
    const ciphertext = ciphertextOf(await encrypt());
    await using other = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const elsewhere = await KeyCalls.of(other);
    await elsewhere.post(NAME, 'rotate');
    expect((await encrypt()).json().version).toBe(2);
    await elsewhere.post(NAME, 'disable');
    expect((await encrypt()).json()).toMatchObject({ code: 'key_disabled' });
    expect((await decrypt(ciphertext)).json()).toMatchObject({ code: 'key_disabled' });
    await elsewhere.post(NAME, 'enable');
    expect((await decrypt(ciphertext)).json()).toMatchObject({ plaintext_b64: SECRET });
    await elsewhere.shred(NAME);
    expect((await decrypt(ciphertext)).json()).toMatchObject({ code: 'key_destroyed' });
  });

  test('returns nothing when the key is destroyed while the first use waits for its record', async () => {
    const ciphertext = ciphertextOf(await encrypt());
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    faulty.replaced.appendAudit = async (real, ...args) => {
      delete faulty.replaced.appendAudit;
      reached.resolve();
      await gate.promise;
      return real(...args);
    };
    const running = decrypt(ciphertext);
    await reached.promise;
    expect((await keys.shred(NAME)).status).toBe(200);
    gate.resolve();
    const answer = await running;
    expect(answer.json()).toMatchObject({ status: 410, code: 'key_destroyed' });
    expect(answer.text).not.toContain(SECRET);
  });

  test('removes a cached key after five minutes', async () => {
    let reads = 0;
    faulty.replaced.findKey = (real, ...args) => {
      reads++;
      return real(...args);
    };
    await encrypt();
    const afterFirst = reads;
    for (let time = 0; time < 3; time++) await encrypt();
    expect(reads).toBe(afterFirst);
    clock.advance(300_001);
    await encrypt();
    expect(reads).toBe(2 * afterFirst);
  });

  test('reports a key or version as damaged when its row was changed', async () => {
    const first = ciphertextOf(await encrypt());
    await keys.post(NAME, 'rotate');
    const id = `(SELECT id FROM keys WHERE name = '${NAME}')`;
    edit(kms, `UPDATE key_versions SET wrapped = zeroblob(69) WHERE key_id = ${id} AND version = 1`);
    const second = ciphertextOf(await encrypt());
    expect((await decrypt(first)).json()).toMatchObject({ status: 503, code: 'key_damaged' });
    expect((await decrypt(second)).status).toBe(200);
    edit(kms, `UPDATE keys SET exportable = 0 WHERE name = '${NAME}'`);
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const later = await KeyCalls.of(again);
    const answer = await later.crypto('decrypt', NAME, { ciphertext_b64: second });
    expect(answer.json()).toMatchObject({ code: 'key_damaged' });
  });
});

describe('a batch', () => {
  test('has a result for each item in order, and a faulty item fails alone', async () => {
    await keys.create('b-dek');
    const foreign = ciphertextOf(await encrypt(SECRET, undefined, 'b-dek'));
    const first = ciphertextOf(await encrypt());
    await keys.post(NAME, 'rotate');
    const second = ciphertextOf(await encrypt(b64('two'), b64('aad')));
    await keys.post(NAME, 'rotate');
    await keys.destroyVersion(NAME, 2);
    const third = ciphertextOf(await encrypt(b64('three'), b64('aad')));
    const items = [
      { ciphertext_b64: first },
      { ciphertext_b64: 'no base64' },
      { ciphertext_b64: third, aad_b64: b64('aad') },
      { ciphertext_b64: third },
      { ciphertext_b64: second, aad_b64: b64('aad') },
      { ciphertext_b64: foreign },
      { plaintext_b64: '' },
      7,
      null,
    ];
    const codes = [
      undefined,
      'invalid_request',
      undefined,
      'decryption_failed',
      'key_version_destroyed',
      'decryption_failed',
      'invalid_request',
      'invalid_request',
      'invalid_request',
    ];
    for (const operation of ['decrypt', 'rewrap'] as const) {
      const answer = await keys.crypto(operation, NAME, { items });
      expect(answer.status).toBe(200);
      const schema = operation === 'decrypt' ? decryptAnswerSchema : rewrapAnswerSchema;
      schema.parse(answer.json());
      const { results } = answer.json();
      expect(results.map((result: { error?: { code: string } }) => result.error?.code)).toEqual(codes);
      if (operation === 'decrypt') {
        expect(results[0]).toEqual({ plaintext_b64: SECRET, version: 1 });
        expect(results[2]).toEqual({ plaintext_b64: b64('three'), version: 3 });
      } else {
        expect(results[0]).toMatchObject({ version: 3, from_version: 1 });
        expect(answer.text).not.toContain(SECRET);
      }
      expect(results[1].error.errors).toMatchObject([{ path: 'body.items.1.ciphertext_b64' }]);
    }
  });

  test('of plaintexts is encrypted item by item', async () => {
    const items = [
      { plaintext_b64: SECRET },
      { plaintext_b64: '?' },
      { plaintext_b64: '', aad_b64: b64('x') },
    ];
    const answer = await keys.crypto('encrypt', NAME, { items });
    encryptAnswerSchema.parse(answer.json());
    const [one, two, three] = answer.json().results;
    expect(two).toMatchObject({ error: { code: 'invalid_request', title: expect.any(String) } });
    const opened = await keys.crypto('decrypt', NAME, {
      items: [one, { ...three, aad_b64: b64('x') }].map(({ version: _, ...item }) => item),
    });
    expect(opened.json().results).toEqual([
      { plaintext_b64: SECRET, version: 1 },
      { plaintext_b64: '', version: 1 },
    ]);
  });

  test('is refused as a whole when the key may not be used, or the envelope is invalid', async () => {
    const item = { plaintext_b64: '' };
    const many = Array.from({ length: CRYPTO_ITEMS_MAX }, () => item);
    expect((await keys.crypto('encrypt', NAME, { items: many })).json().results).toHaveLength(
      CRYPTO_ITEMS_MAX,
    );
    for (const body of [
      { items: [] },
      { items: [...many, item] },
      { items: item },
      { items: [item], plaintext_b64: '' },
      { items: [item], more: 1 },
      {},
      { plaintext: '' },
      { plaintext_b64: '', aad_b64: null },
    ])
      expect((await keys.crypto('encrypt', NAME, body)).json()).toMatchObject({
        status: 400,
        code: 'invalid_request',
      });
    await keys.post(NAME, 'disable');
    expect((await keys.crypto('encrypt', NAME, { items: [item] })).json()).toMatchObject({
      code: 'key_disabled',
    });
  });

  test('and an item have limits in bytes, and are accepted up to them', async () => {
    const largest = b64(Buffer.alloc(PLAINTEXT_BYTES_MAX, 1));
    const aad = b64(Buffer.alloc(CRYPTO_AAD_BYTES_MAX, 2));
    const ciphertext = ciphertextOf(await encrypt(largest, aad));
    expect((await decrypt(ciphertext, aad)).json().plaintext_b64).toBe(largest);
    expect((await rewrap(ciphertext, aad)).status).toBe(200);
    const tooLarge = b64(Buffer.alloc(PLAINTEXT_BYTES_MAX + 1));
    expect((await encrypt(tooLarge)).json()).toMatchObject({ code: 'invalid_request' });
    expect((await encrypt('', b64(Buffer.alloc(CRYPTO_AAD_BYTES_MAX + 1)))).json()).toMatchObject({
      code: 'invalid_request',
    });
    const items = Array.from({ length: 11 }, () => ({ plaintext_b64: largest }));
    expect((await keys.crypto('encrypt', NAME, { items })).status).toBe(200);
    const body = { items: [...items, { plaintext_b64: largest }] };
    expect((await keys.crypto('encrypt', NAME, body)).json()).toMatchObject({
      status: 413,
      code: 'payload_too_large',
    });
  });
});

describe('the audit', () => {
  const recordsOf = async (action: string) =>
    (await kms.records()).filter((record) => record.action === action);

  test('has a record of the first use of a minute that is durable before the answer and names caller, action and version', async () => {
    const { token, jti } = await kms.issue({
      sub: 'app',
      typ: 'client',
      scope: ['kms:encrypt'],
      keys: ['*'],
    });
    const { seq } = await kms.store.auditHead();
    const answer = await kms.api(`/v1/encrypt/${NAME}`, { token, body: { plaintext_b64: SECRET } });
    expect(answer.status).toBe(200);
    // Not through records(), which waits.
    expect((await kms.store.listAudit({ after: seq, limit: 10 })).items).toMatchObject([
      {
        severity: 'INFO',
        action: 'key.encrypt',
        outcome: 'allowed',
        actor: 'app',
        jti,
        key: NAME,
        version: 1,
        source: '127.0.0.1',
        request_id: expect.any(String),
        detail: { key_id: expect.any(String), count: 1 },
      },
    ]);
  });

  test('has one record with the count of later uses, when the minute ends or the service stops', async () => {
    const ciphertext = ciphertextOf(await encrypt());
    for (let time = 0; time < 5; time++) await encrypt();
    await keys.crypto('encrypt', NAME, { items: Array.from({ length: 7 }, () => ({ plaintext_b64: '' })) });
    await decrypt(ciphertext);
    expect(await recordsOf('key.encrypt')).toHaveLength(1);
    const since = new Date(clock.now()).toISOString();
    clock.advance(60_000);
    await encrypt();
    expect((await recordsOf('key.encrypt')).map(({ detail }) => detail)).toMatchObject([
      { count: 1 },
      { count: 12, since },
      { count: 1 },
    ]);
    await encrypt();
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const records = await again.records();
    expect(records.filter(({ action }) => action === 'key.encrypt').at(-1)?.detail).toMatchObject({
      count: 1,
    });
    expect(records.filter(({ action }) => action === 'key.decrypt')).toHaveLength(1);
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  test('has separate records for another token, version or operation', async () => {
    const ciphertext = ciphertextOf(await encrypt());
    await keys.post(NAME, 'rotate');
    await encrypt();
    await rewrap(ciphertext);
    await decrypt(ciphertext);
    const { token } = await kms.issue({ scope: ['kms:encrypt'], keys: ['*'] });
    await kms.api(`/v1/encrypt/${NAME}`, { token, body: { plaintext_b64: '' } });
    const seen = (await kms.records()).filter(({ action }) => /^key\.(encrypt|decrypt|rewrap)$/.test(action));
    expect(seen.map(({ action, version }) => [action, version])).toEqual([
      ['key.encrypt', 1],
      ['key.encrypt', 2],
      ['key.rewrap', 2],
      ['key.decrypt', 1],
      ['key.encrypt', 2],
    ]);
  });

  test('releases nothing when the record of a use fails, and the next use tries again', async () => {
    const ciphertext = ciphertextOf(await encrypt());
    faulty.replaced.appendAudit = () => Promise.reject(new AppError('storage_unavailable'));
    const answer = await decrypt(ciphertext);
    expect(answer.json()).toMatchObject({ status: 503, code: 'audit_unavailable' });
    expect(answer.text).not.toContain(SECRET);
    // A minute that has its record continues to its end.
    expect((await encrypt()).status).toBe(200);
    delete faulty.replaced.appendAudit;
    expect((await decrypt(ciphertext)).status).toBe(200);
  });

  test('has each refusal and failure of any caller, counted beyond ten per minute', async () => {
    const { token, jti } = await kms.issue({ sub: 'app', scope: ['kms:encrypt'], keys: ['b-*'] });
    const ask = () => kms.api(`/v1/decrypt/${NAME}`, { token, body: { ciphertext_b64: '' } });
    expect((await ask()).status).toBe(403);
    await kms.api(`/v1/decrypt/${NAME}`, { body: { ciphertext_b64: '' } });
    await decrypt(b64('x'));
    await keys.crypto('decrypt', NAME, { items: [{ ciphertext_b64: '' }, { ciphertext_b64: '' }, {}] });
    const told = (await recordsOf('key.decrypt')).map(({ outcome, code, actor, key, detail }) => [
      outcome,
      code,
      actor,
      key,
      detail?.['count'],
    ]);
    expect(told).toEqual([
      ['refused', 'forbidden', 'app', NAME, undefined],
      ['refused', 'unauthenticated', undefined, NAME, undefined],
      ['failed', 'decryption_failed', 'tester', NAME, undefined],
      ['failed', 'decryption_failed', 'tester', NAME, 2],
      ['failed', 'invalid_request', 'tester', NAME, 1],
    ]);
    for (let time = 0; time < 12; time++) await ask();
    expect((await recordsOf('key.decrypt')).filter((record) => record.jti === jti)).toHaveLength(10);
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const counted = (await again.records()).filter((record) => record.jti === jti).at(-1);
    expect(counted).toMatchObject({
      action: 'key.decrypt',
      outcome: 'refused',
      actor: 'app',
      detail: { count: 3 },
    });
  });

  test('has the hash of an invalid name', async () => {
    await keys.crypto('decrypt', 'NOT-A-NAME', { ciphertext_b64: '' });
    expect((await recordsOf('key.decrypt')).at(-1)?.key).toMatch(/^sha256:[0-9a-f]{64}$/);
  });
});
