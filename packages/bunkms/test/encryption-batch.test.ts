import {
  CRYPTO_AAD_BYTES_MAX,
  CRYPTO_ITEMS_MAX,
  decryptAnswerSchema,
  encryptAnswerSchema,
  PLAINTEXT_BYTES_MAX,
  rewrapAnswerSchema,
} from '@bundoc/shared/contract/crypto';
import { describe, expect, it } from 'vitest';
import {
  b64,
  ciphertextOf,
  decrypt,
  encrypt,
  keys,
  NAME,
  rewrap,
  SECRET,
  useEncryption,
} from './support/encryption.ts';

useEncryption();

describe('a batch', () => {
  it('has a result for each item in order, and a faulty item fails alone', async () => {
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

  it('a batch of plaintexts is encrypted item by item', async () => {
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

  it('is refused as a whole when the key may not be used, or the envelope is invalid', async () => {
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

  it('is accepted up to its limit in bytes, and so is each item', async () => {
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
