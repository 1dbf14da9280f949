import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
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
} from './support/encryption.ts';
import { startKms } from './support/kms.ts';

useEncryption();

describe('the audit', () => {
  const recordsOf = async (action: string) =>
    (await kms.records()).filter((record) => record.action === action);

  it('has a record of the first use of a minute that is durable before the answer and names caller, action and version', async () => {
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

  it('has one record with the count of later uses, when the minute ends or the service stops', async () => {
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

  it('has separate records for another token, version or operation', async () => {
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

  it('releases nothing when the record of a use fails, and the next use tries again', async () => {
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

  it('has each refusal and failure of any caller, counted beyond ten per minute', async () => {
    const { token, jti } = await kms.issue({ sub: 'app', scope: ['kms:encrypt'], keys: ['b-*'] });
    const ask = () => kms.api(`/v1/decrypt/${NAME}`, { token, body: { ciphertext_b64: '' } });
    expect((await ask()).status).toBe(403);
    await kms.api(`/v1/decrypt/${NAME}`, { body: { ciphertext_b64: '' } });
    await decrypt(b64('x'));
    await keys.crypto('decrypt', NAME, { items: [{ ciphertext_b64: '' }, { ciphertext_b64: '' }, {}] });
    const recorded = (await recordsOf('key.decrypt')).map(({ outcome, code, actor, key, detail }) => [
      outcome,
      code,
      actor,
      key,
      detail?.['count'],
    ]);
    expect(recorded).toEqual([
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

  it('has the hash of an invalid name', async () => {
    await keys.crypto('decrypt', 'NOT-A-NAME', { ciphertext_b64: '' });
    expect((await recordsOf('key.decrypt')).at(-1)?.key).toMatch(/^sha256:[0-9a-f]{64}$/);
  });
});
