import { randomBytes } from 'node:crypto';
import {
  CIPHERTEXT_OVERHEAD_BYTES,
  decryptedSchema,
  encryptedSchema,
  rewrappedSchema,
} from '@bundoc/shared/contract/crypto';
import { describe, expect, it } from 'vitest';
import { CIPHERTEXT_OVERHEAD_BYTES as OVERHEAD_OF_CODEC } from '../src/encryption/ciphertext.ts';
import {
  b64,
  ciphertextOf,
  clock,
  decrypt,
  encrypt,
  faulty,
  keys,
  kms,
  NAME,
  rewrap,
  SECRET,
  useEncryption,
  withoutId,
} from './support/encryption.ts';
import { startKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';

useEncryption();

describe('encryption', () => {
  it('decrypts ciphertexts with the AAD of the encryption, on both listeners', async () => {
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

  it('gives a different ciphertext each time, with the length in the contract', async () => {
    const made = [ciphertextOf(await encrypt()), ciphertextOf(await encrypt())];
    expect(new Set(made).size).toBe(2);
    const bytes = Buffer.from(SECRET, 'base64').length;
    for (const one of made)
      expect(Buffer.from(one, 'base64')).toHaveLength(bytes + CIPHERTEXT_OVERHEAD_BYTES);
    expect(CIPHERTEXT_OVERHEAD_BYTES).toBe(OVERHEAD_OF_CODEC);
  });

  it('works with a key that is not exportable, and with a key from before a restart', async () => {
    await keys.create('kept-dek', { exportable: false });
    const ciphertext = ciphertextOf(await encrypt(SECRET, undefined, 'kept-dek'));
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const later = await KeyCalls.of(again);
    const answer = await later.crypto('decrypt', 'kept-dek', { ciphertext_b64: ciphertext });
    expect(answer.json()).toEqual({ plaintext_b64: SECRET, version: 1 });
  });

  it('uses the current version, opens older ones, and rewraps them without revealing a plaintext', async () => {
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

  it('fails with the same error for any fault of a ciphertext or its AAD', async () => {
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
});

describe('encryption with a key that changes', () => {
  it('fails once the key is unusable, and so does decryption of any ciphertext', async () => {
    for (const operation of ['encrypt', 'decrypt', 'rewrap'] as const) {
      const body = operation === 'encrypt' ? { plaintext_b64: '' } : { ciphertext_b64: '' };
      expect((await keys.crypto(operation, 'none-dek', body)).json()).toMatchObject({
        code: 'key_not_found',
      });
    }
  });

  it('follows a change by another process at once', async () => {
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

  it('returns nothing when the key is destroyed while the first use waits for its record', async () => {
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

  it('removes a cached key after five minutes', async () => {
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

  it('reports a key or version as damaged when its row was changed', async () => {
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
