import { createSecretKey } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { AppError } from '@bundoc/shared/contract/app-error';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { issuedTokenSchema } from '@bundoc/shared/contract/tokens';
import { expect, it } from 'vitest';
import { encryptionKeyOf } from '../src/encryption/ciphertext.ts';
import { withDatabase } from './support/database.ts';
import { FaultyStore } from './support/faulty-store.ts';
import type { Answer, Call } from './support/http.ts';
import { newKek, startKms } from './support/kms.ts';

/** The encodings in which bytes may be revealed. */
function spellings(bytes: Buffer): Buffer[] {
  const hex = bytes.toString('hex');
  const texts = [
    hex,
    hex.toUpperCase(),
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    [...bytes].join(','),
  ];
  return [bytes, ...texts.map((text) => Buffer.from(text))];
}

it('no KEK, no DEK, no token and no signing seed is in any log line, error, metric or file', async () => {
  const faulty = new FaultyStore();
  const planted = new Map<string, Buffer[]>();
  const kek = newKek();
  planted.set('KEK', spellings(Buffer.from(kek, 'base64')));
  const shown: string[] = [];

  const further = newKek();
  planted.set('further KEK', spellings(Buffer.from(further, 'base64')));
  await using kms = await startKms({ kek: `${kek}\n${further}`, decorate: faulty.decorate });
  const { signingKey, chainKey } = await kms.secrets();
  planted.set(
    'signing seed',
    spellings(Buffer.from(String(signingKey.export({ format: 'jwk' }).d), 'base64url')),
  );
  planted.set('chain key', spellings(chainKey.export()));
  const token = await kms.fullToken();
  const plant = (text: string) =>
    planted.set(`token ${planted.size}`, [Buffer.from(text), Buffer.from(String(text.split('.')[2]))]);
  plant(token);

  /** Sends a request and keeps the answer, which must contain no secrets. */
  const ask = async (listener: 'api' | 'internal', path: string, options: Call = {}): Promise<Answer> => {
    const answer = await kms[listener](path, options);
    shown.push(`${inspect(answer.headers)}${answer.text}`);
    return answer;
  };
  const exportKey = async (name: string) => {
    const answer = await kms.internal(`/v1/export/${name}`, { token });
    const key = exportedKeySchema.parse(answer.json());
    const dek = Buffer.from(key.key_material_b64, 'base64');
    planted.set(`DEK ${name}.${key.version}`, spellings(dek));
    const encryptionKey = encryptionKeyOf(createSecretKey(dek)).export();
    planted.set(`encryption key ${name}.${key.version}`, spellings(encryptionKey));
  };

  // Plaintexts and AADs must not appear anywhere; ciphertexts may.
  const plaintext = Buffer.from('a planted plaintext, of some length');
  const aad = Buffer.from('planted additional data');
  planted.set('plaintext', spellings(plaintext));
  planted.set('AAD', spellings(aad));
  const encrypted = async (name: string) => {
    const body = { plaintext_b64: plaintext.toString('base64'), aad_b64: aad.toString('base64') };
    const { ciphertext_b64 } = (await ask('api', `/v1/encrypt/${name}`, { token, body })).json();
    const item = { ciphertext_b64, aad_b64: body.aad_b64 };
    expect((await kms.api(`/v1/decrypt/${name}`, { token, body: item })).json().plaintext_b64).toBe(
      body.plaintext_b64,
    );
    await ask('api', `/v1/rewrap/${name}`, { token, body: item });
    const made = await kms.api(`/v1/data-key/${name}`, { token, body: { aad_b64: body.aad_b64 } });
    const dataKey = Buffer.from(made.json().plaintext_b64, 'base64');
    expect(dataKey).toHaveLength(32);
    planted.set(`data key ${planted.size}`, spellings(dataKey));
    // With faults, which answers and records describe.
    await ask('api', `/v1/decrypt/${name}`, { token, body: { ...item, aad_b64: '' } });
    await ask('api', `/v1/decrypt/${name}`, {
      token,
      body: { items: [{ ciphertext_b64 }, body, item.aad_b64] },
    });
    await ask('api', `/v1/encrypt/${name}`, { token, body: { ...body, version: body.plaintext_b64 } });
    await ask('api', `/v1/encrypt/${body.plaintext_b64}`, { token, body });
    await ask('api', `/v1/data-key/${name}`, { token, body: { ...body, bytes: body.plaintext_b64 } });
    await ask('api', `/v1/data-key/${body.plaintext_b64}`, { token, body: {} });
  };

  for (const name of ['a-dek', 'b-dek', 'c-dek']) {
    await ask('api', '/v1/keys', { token, body: { name, type: 'aes-256' } });
    await exportKey(name);
    await encrypted(name);
    await ask('internal', `/v1/keys/${name}/rotate`, { method: 'POST', token });
    await exportKey(name);
    await ask('api', `/v1/keys/${name}`, { token });
  }
  plant(issuedTokenSchema.parse((await kms.api('/v1/tokens/renew', { method: 'POST', token })).json()).token);
  const issue = { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['*'] };
  plant(issuedTokenSchema.parse((await kms.api('/v1/tokens', { token, body: issue })).json()).token);

  // A rotation of the KEK, with KEKs in place of ids.
  for (const wrong of [kek, further, Buffer.from(further, 'base64').toString('hex')])
    for (const path of ['/v1/kek/rotate', '/v1/kek/retire'])
      await ask('api', path, { token, body: { kek_id: wrong, [wrong]: wrong } });
  await ask('api', `/v1/kek/${encodeURIComponent(further)}/unfetched`, { token });
  const { rotation } = (await ask('api', '/v1/kek/rotate', { method: 'POST', token })).json();
  await expect
    .poll(async () => (await ask('api', '/v1/kek', { token })).json().rotation.completed_at)
    .toBeDefined();
  await ask('api', '/v1/kek/verify', { method: 'POST', token });
  await ask('api', `/v1/kek/${rotation.from}/unfetched`, { token });
  await ask('api', '/v1/kek/retire', { token, body: { kek_id: rotation.from } });

  // Everything that can go wrong, with secrets where answers might quote them.
  await ask('api', '/v1/keys', { token, body: { name: kek, type: 'aes-256' } });
  await ask('api', '/v1/keys', { token, body: `{"name":"${kek}` });
  await ask('api', `/v1/keys?cursor=${token}`, { token });
  await ask('internal', `/v1/export/${token}`, { token });
  await ask('internal', `/v1/export/${encodeURIComponent(kek)}`);
  await ask('internal', `/v1/export/a-dek?token=${token}`);
  await ask('internal', `/v1/export/a-dek?version=${token}`, { token });
  await ask('api', `/v1/keys/a-dek/rotate?expected_version=${token}`, { method: 'POST', token });
  await ask('api', '/v1/keys/a-dek/rotate', { token, body: { kek } });
  await ask('internal', `/v1/${token}`, { token: `${token}x` });
  await ask('api', '/v1/tokens', { token, body: { sub: token } });
  for (const path of [
    '/v1/keys',
    '/v1/tokens',
    '/v1/audit?limit=500',
    '/v1/audit/head',
    '/metrics',
    '/ready',
    '/nothing',
  ])
    await ask('api', path, { token });
  withDatabase(kms.dataDir, (database) =>
    database.exec(
      `UPDATE key_versions SET wrapped = zeroblob(69) WHERE key_id = (SELECT id FROM keys WHERE name = 'b-dek');
       UPDATE key_versions SET kcv = '' WHERE key_id = (SELECT id FROM keys WHERE name = 'c-dek')`,
    ),
  );
  for (const name of ['b-dek', 'c-dek', 'none-dek']) {
    await ask('internal', `/v1/export/${name}`, { token });
    await ask('internal', `/v1/export/${name}?version=1`, { token });
    await ask('internal', `/v1/keys/${name}/rotate`, { method: 'POST', token });
  }
  faulty.replaced.appendAudit = () =>
    Promise.reject(new AppError('storage_unavailable', { cause: new Error('injected') }));
  await ask('internal', '/v1/export/a-dek', { token });
  delete faulty.replaced.appendAudit;
  faulty.replaced.findKey = () => Promise.reject(new TypeError('a defect'));
  expect((await ask('internal', '/v1/export/a-dek', { token })).status).toBe(500);
  delete faulty.replaced.findKey;
  await kms.records();

  const files = readdirSync(kms.dataDir).map((name) => ({
    name,
    bytes: readFileSync(join(kms.dataDir, name)),
  }));
  await kms.running.close();
  await using sealed = await startKms({ dataDir: kms.dataDir, kek: newKek() });
  shown.push((await sealed.internal(`/v1/export/${token}`, { token })).text);
  await sealed.running.close();
  files.push(
    ...readdirSync(kms.dataDir).map((name) => ({ name, bytes: readFileSync(join(kms.dataDir, name)) })),
  );
  expect(files.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['bunkms.sqlite-wal', 'sealed-records.jsonl']),
  );
  expect(kms.logs.length).toBeGreaterThan(20);

  const places = [
    { name: 'log', bytes: Buffer.from([...kms.logs, ...sealed.logs].join('')) },
    { name: 'answers', bytes: Buffer.from(shown.join('\n')) },
    ...files,
  ];
  // The search itself works.
  for (const name of ['log', 'bunkms.sqlite-wal'])
    expect(places.find((place) => place.name === name)?.bytes.includes('a-dek')).toBe(true);
  for (const [secret, forms] of planted)
    for (const form of forms)
      for (const place of places)
        expect(`${secret} in ${place.name}: ${place.bytes.includes(form)}`).toMatch(/: false$/);
});
