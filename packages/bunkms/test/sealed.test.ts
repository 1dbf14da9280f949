import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rotateKeks } from './support/keks.ts';
import { newDataDir, newKek, startKms } from './support/kms.ts';

describe('a service with another KEK than that of its store', () => {
  const kek = newKek();
  let dataDir: string;
  let token: string;
  beforeEach(async () => {
    dataDir = newDataDir();
    await using kms = await startKms({ dataDir, kek });
    token = await kms.fullToken();
    await kms.api('/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } });
  });
  afterEach(() => rmSync(dataDir, { recursive: true }));

  it('is sealed: it answers 503 to all requests except health, readiness and the metrics on the internal network', async () => {
    await using kms = await startKms({ dataDir, kek: newKek() });
    for (const listener of ['api', 'internal'] as const) {
      for (const [path, method] of [
        ['/v1/keys', 'GET'],
        ['/v1/keys', 'POST'],
        ['/v1/keys/a-dek', 'GET'],
        ['/v1/keys/a-dek/rotate', 'POST'],
        ['/v1/export/a-dek', 'GET'],
        ['/v1/export/a-dek?version=1', 'GET'],
        ['/v1/tokens', 'GET'],
        ['/v1/tokens', 'POST'],
        ['/v1/tokens/renew', 'POST'],
        ['/v1/audit', 'GET'],
        ['/v1/audit/head', 'GET'],
        ['/.well-known/jwks.json', 'GET'],
        ['/nothing', 'GET'],
      ] as const)
        for (const as of [undefined, token]) {
          const answer = await kms[listener](path, { method, token: as });
          expect([path, answer.status, answer.json().code, answer.headers['retry-after']]).toEqual([
            path,
            503,
            'sealed',
            '1',
          ]);
        }
      const metrics = await kms[listener]('/metrics', { token });
      if (listener === 'internal') expect(metrics.text).toMatch(/^bunkms_sealed 1$/m);
      else expect([metrics.status, metrics.json().code]).toEqual([503, 'sealed']);
      expect((await kms[listener]('/health')).json()).toMatchObject({ status: 'ok' });
      const ready = await kms[listener]('/ready');
      expect([ready.status, ready.json().status]).toEqual([503, 'sealed']);
    }
    expect(kms.logs.join('')).toContain('the KEK does not fit the store');
  });

  it('writes nothing to the store, and works again with the right KEK', async () => {
    const before = await (async () => {
      await using kms = await startKms({ dataDir, kek: newKek() });
      await kms.api('/v1/keys', { token, body: { name: 'b-dek', type: 'aes-256' } });
      return kms.store.auditHead();
    })();
    await using kms = await startKms({ dataDir, kek });
    expect(await kms.store.auditHead()).toEqual(before);
    expect((await kms.internal('/v1/export/a-dek', { token })).status).toBe(200);
    expect((await kms.api('/v1/keys', { token, body: { name: 'b-dek', type: 'aes-256' } })).status).toBe(201);
    expect((await kms.api('/ready')).status).toBe(200);
  });

  it('keeps every access to export, and adds it to the chain once at the next unsealed start', async () => {
    const otherKek = newKek();
    for (let start = 0; start < 2; start++) {
      await using kms = await startKms({ dataDir, kek: otherKek });
      await kms.internal('/v1/export/a-dek', { token });
      await kms.internal('/v1/%65xport/NOT-a-name');
      await kms.internal('/v1/export/%zz');
      await kms.api('/v1/export/a-dek', { token });
    }
    const file = readFileSync(join(dataDir, 'sealed-records.jsonl'));
    const lines = file.toString().trim().split('\n').slice(1);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject(
      [0, 1].flatMap(() => [
        {
          severity: 'CRITICAL',
          action: 'key.export',
          outcome: 'failed',
          code: 'sealed',
          key: 'a-dek',
          source: '127.0.0.1',
        },
        { code: 'sealed', key: expect.stringMatching(/^sha256:/) },
        { code: 'invalid_request', key: expect.stringMatching(/^sha256:/) },
      ]),
    );
    expect(file.toString()).not.toContain('NOT-a-name');
    const sha256 = createHash('sha256').update(file).digest('hex');
    for (let start = 0; start < 2; start++) {
      await using kms = await startKms({ dataDir, kek });
      const adopted = (await kms.records()).filter(({ action }) => action === 'records.adopted');
      expect(adopted).toMatchObject([
        { severity: 'CRITICAL', outcome: 'allowed', detail: { sha256, lines: 6, dropped: 0 } },
      ]);
      expect(await kms.verify()).toMatchObject({ intact: true });
    }
    expect(readdirSync(dataDir)).toContain(`sealed-records-${sha256}.jsonl`);
    expect(readdirSync(dataDir)).not.toContain('sealed-records.jsonl');
  });

  it('stays unsealed when another KEK is added first, and keeps wrapping with the recorded one', async () => {
    const further = newKek();
    await using kms = await startKms({ dataDir, kek: `${further}\n${kek}` });
    await kms.api('/v1/keys', { token, body: { name: 'new-dek', type: 'aes-256' } });
    for (const name of ['a-dek', 'new-dek'])
      expect((await kms.internal(`/v1/export/${name}`, { token })).status).toBe(200);
    expect((await kms.records()).filter(({ action }) => action === 'kek.stage')).toHaveLength(1);
    await kms.running.close();

    // A KEK that was only staged may be removed again.
    await using back = await startKms({ dataDir, kek });
    for (const name of ['a-dek', 'new-dek'])
      expect((await back.internal(`/v1/export/${name}`, { token })).status).toBe(200);
  });

  it('is sealed with a ring that lacks the current KEK, before and after a rotation', async () => {
    const further = newKek();
    const isSealed = async (ring: string) => {
      await using kms = await startKms({ dataDir, kek: ring });
      return (await kms.api('/ready')).json().status === 'sealed';
    };
    expect([await isSealed(further), await isSealed(kek)]).toEqual([true, false]);
    {
      await using kms = await startKms({ dataDir, kek: `${kek}\n${further}` });
      await rotateKeks(kms);
    }
    expect([await isSealed(kek), await isSealed(further)]).toEqual([true, false]);
  });
});
