import { AppError } from '@bundoc/shared/contract/app-error';
import { CIPHERTEXT_OVERHEAD_BYTES, dataKeyAnswerSchema } from '@bundoc/shared/contract/crypto';
import { describe, expect, it } from 'vitest';
import { b64, decrypt, faulty, keys, kms, NAME, rewrap, useEncryption } from './support/encryption.ts';

useEncryption();

const make = (body: object = {}, name = NAME) => keys.crypto('data-key', name, body);
const made = async (body?: object, name?: string) => {
  const answer = await make(body, name);
  expect(answer, answer.text).toMatchObject({ status: 200, headers: { 'cache-control': 'no-store' } });
  return dataKeyAnswerSchema.strict().parse(answer.json());
};
const bytesOf = (text: string) => Buffer.from(text, 'base64').length;

describe('a data key', () => {
  it('comes back from its ciphertext with the AAD of its making, on both listeners', async () => {
    for (const aad of [undefined, '', b64('backups/a.tar')]) {
      const { plaintext_b64, ciphertext_b64, version } = await made(
        aad === undefined ? {} : { aad_b64: aad },
      );
      expect([bytesOf(plaintext_b64), bytesOf(ciphertext_b64)]).toEqual([32, 32 + CIPHERTEXT_OVERHEAD_BYTES]);
      expect((await decrypt(ciphertext_b64, aad)).json()).toEqual({ plaintext_b64, version });
      const other = await decrypt(ciphertext_b64, b64('backups/b.tar'));
      expect(other.json()).toMatchObject({ status: 400, code: 'decryption_failed' });
    }
    const inside = await kms.internal(`/v1/data-key/${NAME}`, { token: await kms.fullToken(), body: {} });
    expect(inside).toMatchObject({ status: 200, headers: { 'cache-control': 'no-store' } });
    const bare = await kms.api(`/v1/data-key/${NAME}`, { token: await kms.fullToken(), method: 'POST' });
    expect([bare.status, bytesOf(bare.json().plaintext_b64)]).toEqual([200, 32]);
  });

  it('is of the current version of its key, and outlives a rotation by rewrapping', async () => {
    const { plaintext_b64, ciphertext_b64 } = await made({ aad_b64: b64('a') });
    await keys.post(NAME, 'rotate');
    expect((await made()).version).toBe(2);
    const rewrapped = (await rewrap(ciphertext_b64, b64('a'))).json();
    await keys.destroyVersion(NAME, 1);
    const opened = await decrypt(rewrapped.ciphertext_b64, b64('a'));
    expect(opened.json()).toEqual({ plaintext_b64, version: 2 });
  });

  it('has the bytes of the request, from 16 to 64, and is never the same', async () => {
    const seen = new Set<string>();
    const sizes = [16, 24, 32, 33, 48, 64, 64, 64];
    for (const bytes of sizes) {
      const { plaintext_b64, ciphertext_b64 } = await made({ bytes });
      expect(bytesOf(plaintext_b64)).toBe(bytes);
      for (const text of [plaintext_b64, ciphertext_b64]) seen.add(text);
    }
    expect(seen.size).toBe(2 * sizes.length);
  });

  it.each([
    [{ bytes: 15 }, 'body.bytes', /16/],
    [{ bytes: 65 }, 'body.bytes', /64/],
    [{ bytes: 16.5 }, 'body.bytes', /integer|whole/],
    [{ bytes: '32' }, 'body.bytes', /number/],
    [{ bits: 256 }, 'body', /bits.*bytes.*aad_b64/],
    [{ aad_b64: '?' }, 'body.aad_b64', /base64/],
    [{ aad_b64: b64(Buffer.alloc(4_097)) }, 'body.aad_b64', /4096 bytes/],
  ])('is refused with the member and its bound: %j', async (body, path, message) => {
    expect((await make(body)).json()).toMatchObject({
      status: 400,
      code: 'invalid_request',
      errors: [{ path, message: expect.stringMatching(message) }],
    });
  });

  it('needs kms:encrypt within the keys of the token, as encrypt does', async () => {
    const body = {};
    for (const [scope, names, status] of [
      ['kms:encrypt', ['a-*'], 200],
      ['kms:encrypt', ['b-*'], 403],
      ['kms:decrypt', ['*'], 403],
    ] as const) {
      const { token } = await kms.issue({ scope: [scope], keys: [...names] });
      expect((await kms.api(`/v1/data-key/${NAME}`, { token, body })).status).toBe(status);
    }
  });

  it('is recorded as an encryption before it is answered; refusals are, too', async () => {
    const { seq } = await kms.store.auditHead();
    await made();
    // Not through records(), which waits.
    expect((await kms.store.listAudit({ after: seq, limit: 10 })).items).toMatchObject([
      { severity: 'INFO', action: 'key.encrypt', outcome: 'allowed', key: NAME, version: 1 },
    ]);
    expect((await make({}, 'none-dek')).json()).toMatchObject({ status: 404, code: 'key_not_found' });
    await kms.api(`/v1/data-key/${NAME}`, { body: {} });
    const refused = (await kms.records()).filter(({ action, code }) => action === 'key.encrypt' && code);
    expect(refused.map(({ outcome, code, key }) => [outcome, code, key])).toEqual([
      ['failed', 'key_not_found', 'none-dek'],
      ['refused', 'unauthenticated', NAME],
    ]);
  });

  it('is not answered when its record fails', async () => {
    faulty.replaced.appendAudit = () => Promise.reject(new AppError('storage_unavailable'));
    const answer = await make();
    expect(answer.json()).toMatchObject({ status: 503, code: 'audit_unavailable' });
    expect(answer.text).not.toContain('_b64');
  });
});
