import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attachedKeySchema, exportedKeySchema, keyDetailSchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rotateKeks } from './support/keks.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { TransitServer, type TransitToken } from './support/transit-server.ts';

const NAME = 'a-dek';
let folder: string;
let bao: TransitServer;
let kms: TestKms;
let token: string;
const entriesFile = () => join(folder, 'outside.json');

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-customer-'));
  bao = await TransitServer.start();
  for (const key of ['customer', 'other']) bao.keys.set(key, randomBytes(32));
  writeFileSync(join(folder, 'token'), bao.newToken());
  writeEntries({ acme: entryOf('customer', { keys: ['a-*'] }) });
  kms = await startKms({
    kek: `${newKek()}\n${newKek()}`,
    config: { outsideKeysFile: entriesFile() },
  });
  token = await kms.fullToken();
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  await bao[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

function entryOf(key: string, more: object = {}) {
  return { kind: 'transit', url: bao.url, key, token_file: 'token', ...more };
}

function writeEntries(keys: object): void {
  writeFileSync(entriesFile(), JSON.stringify({ keys }));
}

const ask = (path: string, options: object = {}) => kms.api(path, { token, ...options });
const create = (name = NAME) => ask('/v1/keys', { body: { name, type: 'aes-256' } });
const put = (body: object, name = NAME, by = token) =>
  kms.api(`/v1/keys/${name}/outside`, { token: by, method: 'PUT', body });
const attach = async (body: object = { key: 'acme' }) => {
  const answer = await put(body);
  expect(answer.status, answer.text).toBe(200);
  return attachedKeySchema.strict().parse(answer.json());
};
const detach = () => ask(`/v1/keys/${NAME}/outside`, { method: 'DELETE' });
const rewrap = async () => {
  const answer = await ask(`/v1/keys/${NAME}/outside/rewrap`, { method: 'POST' });
  return answer.status === 200 ? attachedKeySchema.parse(answer.json()) : answer.json().code;
};
const release = (version?: number, name = NAME) =>
  kms.internal(`/v1/export/${name}${version === undefined ? '' : `?version=${version}`}`, { token });
const materialOf = async (version?: number) => {
  const answer = await release(version);
  expect(answer.status, answer.text).toBe(200);
  return exportedKeySchema.parse(answer.json());
};
/** What an export of each version answers. */
const statusesOf = async (...versions: number[]) => {
  const answers: unknown[] = [];
  for (const version of versions) {
    const answer = await release(version);
    answers.push(answer.status === 200 ? 200 : answer.json().code);
  }
  return answers;
};
const customer = () => [...bao.tokens.values()][0] as TransitToken;
const changesOf = async (action: string) =>
  (await kms.records()).filter((record) => record.action === action);

describe('a key that is attached to an outside key', () => {
  it('has a new version that opens only with both, and leases as long as the customer says', async () => {
    await create();
    const before = await materialOf();
    const attached = await attach({ key: 'acme', lease_ttl_s: 120 });
    expect(attached).toMatchObject({
      version: 2,
      outside: { key: 'acme', lease_ttl_s: 120 },
      other_versions: [1],
      kek_ids: [expect.stringMatching(/^[0-9a-f]{16}$/)],
    });
    bao.asked.length = 0;
    const after = await materialOf();
    expect(bao.asked).toEqual(['POST /v1/transit/decrypt/customer']);
    expect(after).toMatchObject({ version: 2, kcv: attached.kcv, lease: { ttl_ms: 120_000 } });
    expect(after.key_material_b64).not.toBe(before.key_material_b64);
    expect(Buffer.from(after.wrapped_b64, 'base64')[0]).toBe(2);
    const detail = keyDetailSchema.strict().parse((await ask(`/v1/keys/${NAME}`)).json());
    expect(detail.outside).toEqual({ key: 'acme', lease_ttl_s: 120 });
    expect(await changesOf('key.attach')).toMatchObject([
      { severity: 'CRITICAL', outcome: 'allowed', key: NAME, version: 2, detail: { outside: 'acme' } },
    ]);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('is the same after a repetition, which leaves no record; another lease needs no new version', async () => {
    await create();
    await attach();
    expect(await attach()).toMatchObject({ version: 2, revision: 2 });
    expect(await attach({ key: 'acme', lease_ttl_s: 60 })).toMatchObject({ version: 2, revision: 3 });
    expect(await changesOf('key.attach')).toHaveLength(2);
    expect((await materialOf()).lease.ttl_ms).toBe(60_000);
  });

  it('is refused while the customer forbids it, works again at once, and waits while he does not answer', async () => {
    await create();
    await attach();
    customer().mayUse = false;
    expect(await statusesOf(2, 1)).toEqual(['outside_key_denied', 200]);
    customer().mayUse = true;
    expect(await statusesOf(2)).toEqual([200]);
    bao.intercept = (_request, response) => response.destroy();
    const away = await release();
    expect([away.status, away.json().code]).toEqual([503, 'outside_key_unavailable']);
    expect(away.text).not.toContain(bao.url);
    bao.intercept = undefined;
    expect(await statusesOf(2)).toEqual([200]);
    const opened = (await changesOf('key.export')).find(
      ({ version, outcome }) => version === 2 && outcome === 'allowed',
    );
    expect(opened?.detail?.['outside_ms']).toEqual(expect.any(Number));
    const refused = (await changesOf('key.export')).filter(({ outcome }) => outcome !== 'allowed');
    expect(refused.map(({ code }) => code)).toEqual(['outside_key_denied', 'outside_key_unavailable']);
  });

  it('protects its older versions by a rewrap, and not by its customer', async () => {
    await create();
    for (let n = 0; n < 9; n++) await ask(`/v1/keys/${NAME}/rotate`, { method: 'POST' });
    const before = await materialOf(3);
    expect((await attach()).other_versions).toHaveLength(10);
    customer().mayUse = false;
    expect(await rewrap()).toBe('outside_key_denied');
    expect(await statusesOf(3)).toEqual([200]);
    customer().mayUse = true;
    expect(await rewrap()).toMatchObject({ version: 11, other_versions: [9, 10] });
    expect(await rewrap()).toMatchObject({ other_versions: [] });
    expect((await materialOf(3)).key_material_b64).toBe(before.key_material_b64);
    customer().mayUse = false;
    expect(await statusesOf(1, 3, 11)).toEqual(Array(3).fill('outside_key_denied'));
    expect(await changesOf('key.rewrap')).toHaveLength(2);
  });

  it('rotates with its customer, and keeps its version without him', async () => {
    await create();
    await attach();
    const rotate = () => ask(`/v1/keys/${NAME}/rotate`, { method: 'POST' });
    expect((await rotate()).json()).toMatchObject({ version: 3 });
    expect(Buffer.from((await materialOf()).wrapped_b64, 'base64')[0]).toBe(2);
    customer().mayUse = false;
    expect((await rotate()).json()).toMatchObject({ status: 403, code: 'outside_key_denied' });
    customer().mayUse = true;
    expect((await materialOf()).version).toBe(3);
  });

  it('is detached without its customer; his versions stay his until he lets them go', async () => {
    await create();
    await attach();
    const his = await materialOf(2);
    customer().mayUse = false;
    expect((await detach()).json()).toMatchObject({ version: 3, other_versions: [2] });
    expect((await detach()).json()).toMatchObject({ version: 3 });
    expect((await ask(`/v1/keys/${NAME}`)).json()).not.toHaveProperty('outside');
    expect(await statusesOf(2, 3)).toEqual(['outside_key_denied', 200]);
    customer().mayUse = true;
    expect(await rewrap()).toMatchObject({ other_versions: [] });
    bao.keys.clear();
    expect((await materialOf(2)).key_material_b64).toBe(his.key_material_b64);
    expect(await changesOf('key.detach')).toMatchObject([{ severity: 'CRITICAL', version: 3 }]);
  });

  it('stays whole through a rotation of the KEK and its verification, which ask no outside key', async () => {
    await create();
    await attach();
    const before = await materialOf();
    bao.asked.length = 0;
    customer().mayUse = false;
    const { keks, rotation } = await rotateKeks(kms);
    expect(rotation).toMatchObject({ total: 2, done: 2 });
    expect(keks.find(({ state }) => state === 'previous')).toMatchObject({ versions: 0 });
    const verified = await ask('/v1/kek/verify', { method: 'POST' });
    expect(verified.json()).toMatchObject({ damaged: [] });
    expect(bao.asked).toEqual([]);
    customer().mayUse = true;
    expect((await materialOf()).key_material_b64).toBe(before.key_material_b64);
  });

  it('is not opened by another key that the entry names later', async () => {
    await create();
    await attach();
    writeEntries({ acme: entryOf('other', { keys: ['a-*'] }) });
    await expect.poll(() => kms.logs.some((line) => line.includes('were read again'))).toBe(true);
    bao.asked.length = 0;
    const answer = await release();
    expect([answer.status, answer.json().code]).toEqual([503, 'outside_key_changed']);
    expect(bao.asked).toEqual([]);
    writeEntries({});
    await expect.poll(async () => (await release()).json().code).toBe('outside_key_unavailable');
    writeEntries({ acme: entryOf('customer') });
    await expect.poll(async () => (await release()).status).toBe(200);
  });

  it('encrypts and decrypts with it', async () => {
    await create();
    await attach();
    const encrypted = (await ask(`/v1/encrypt/${NAME}`, { body: { plaintext_b64: 'aGVsbG8=' } })).json();
    const decrypt = () => ask(`/v1/decrypt/${NAME}`, { body: { ciphertext_b64: encrypted.ciphertext_b64 } });
    expect((await decrypt()).json()).toMatchObject({ plaintext_b64: 'aGVsbG8=', version: 2 });
  });

  it('makes data keys with it, and none while the customer denies', async () => {
    await create();
    await attach();
    const make = () => ask(`/v1/data-key/${NAME}`, { body: {} });
    customer().mayUse = false;
    expect((await make()).json()).toMatchObject({ status: 403, code: 'outside_key_denied' });
    customer().mayUse = true;
    const { ciphertext_b64, plaintext_b64, version } = (await make()).json();
    expect(version).toBe(2);
    const decrypted = await ask(`/v1/decrypt/${NAME}`, { body: { ciphertext_b64 } });
    expect(decrypted.json()).toEqual({ plaintext_b64, version: 2 });
  });
});

describe('attaching', () => {
  it('needs the scope, a grant of the key, and an entry that allows it; absent and not allowed look alike', async () => {
    await create();
    await create('b-dek');
    const reader = await kms.issue({ scope: ['kms:manage_key'], keys: ['*'] });
    expect((await put({ key: 'acme' }, NAME, reader.token)).status).toBe(403);
    const other = await kms.issue({ scope: ['kms:admin'], keys: ['b-*'] });
    expect((await put({ key: 'acme' }, NAME, other.token)).status).toBe(403);
    const refusals = [await put({ key: 'acme' }, 'b-dek'), await put({ key: 'none' }, 'b-dek')].map(
      (answer) => {
        const { request_id: _, ...problem } = answer.json();
        return problem;
      },
    );
    expect(refusals[0]).toMatchObject({ status: 409, code: 'outside_key_unknown' });
    expect(refusals[1]).toEqual(refusals[0]);
    for (const body of [
      {},
      { key: 'A' },
      { key: 'acme', lease_ttl_s: 59 },
      { key: 'acme', lease_ttl_s: 901 },
    ])
      expect((await put(body)).status).toBe(400);
    expect(bao.asked).toEqual([]);
  });

  it('changes nothing when the outside key refuses, or does not open what it has wrapped', async () => {
    await create();
    customer().mayUse = false;
    expect((await put({ key: 'acme' })).json()).toMatchObject({ status: 403, code: 'outside_key_denied' });
    customer().mayUse = true;
    // Each wrap is under a key that is gone at once.
    bao.intercept = (request, response) => {
      bao.keys.set('customer', randomBytes(32));
      response.setHeader('content-type', 'application/json');
      const isWrap = request.url?.includes('/encrypt/') === true;
      const ciphertext = `vault:v1:${randomBytes(60).toString('base64')}`;
      response.statusCode = isWrap ? 200 : 400;
      response.end(JSON.stringify(isWrap ? { data: { ciphertext } } : { errors: ['invalid ciphertext'] }));
    };
    expect((await put({ key: 'acme' })).json()).toMatchObject({
      status: 503,
      code: 'outside_key_unavailable',
    });
    bao.intercept = undefined;
    expect((await ask(`/v1/keys/${NAME}`)).json()).toMatchObject({ version: 1, revision: 1 });
    expect(await changesOf('key.attach')).toEqual([]);
  });

  it('happens at the birth of keys that the entry names, so that no copy opens without it', async () => {
    writeEntries({ acme: entryOf('customer', { create: ['born-*'] }) });
    await expect.poll(() => kms.logs.some((line) => line.includes('were read again'))).toBe(true);
    expect((await create('born-dek')).json()).toMatchObject({
      version: 1,
      outside: { key: 'acme', lease_ttl_s: 900 },
    });
    const key = exportedKeySchema.parse((await release(1, 'born-dek')).json());
    expect(Buffer.from(key.wrapped_b64, 'base64')[0]).toBe(2);
    customer().mayUse = false;
    expect((await create('born-too-dek')).json()).toMatchObject({ status: 403, code: 'outside_key_denied' });
    expect((await ask('/v1/keys/born-too-dek')).status).toBe(404);
  });
});
