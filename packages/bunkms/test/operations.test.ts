import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createHttpServer } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/logs/logger';
import { ConfigError } from '@bundoc/shared/process/config';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { startBunkms } from '../src/app.ts';
import { guardPeers } from '../src/http/internal-network.ts';
import { databasePathOf } from '../src/store/sqlite/sqlite-store.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { call } from './support/http.ts';
import { configOf, newDataDir, newKek, startKms } from './support/kms.ts';

describe('readiness', () => {
  it('writes to the store, at most once a second, however often it is requested', async () => {
    const clock = new FakeClock();
    const faulty = new FaultyStore();
    let probes = 0;
    faulty.replaced.probe = (real) => {
      probes++;
      return real();
    };
    await using kms = await startKms({ clock, decorate: faulty.decorate });
    const answers = await Promise.all(Array.from({ length: 20 }, () => kms.api('/ready')));
    for (const answer of answers)
      expect([answer.status, answer.json()]).toEqual([
        200,
        { service: 'bunkms', status: 'ready', checks: { unsealed: true, store: true, audit: true } },
      ]);
    expect(probes).toBe(1);
    clock.advance(1_000);
    await kms.api('/ready');
    expect(probes).toBe(2);
  });

  it('fails while the store is not writable, unlike health, and recovers', async () => {
    const clock = new FakeClock();
    const faulty = new FaultyStore();
    await using kms = await startKms({ clock, decorate: faulty.decorate });
    faulty.replaced.probe = () => Promise.reject(new AppError('disk_full'));
    expect(await kms.api('/ready')).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    expect((await kms.api('/health')).status).toBe(200);
    delete faulty.replaced.probe;
    clock.advance(1_000);
    expect((await kms.api('/ready')).status).toBe(200);
  });

  it('recovers from an audit failure by a record that says so', async () => {
    const clock = new FakeClock();
    const faulty = new FaultyStore();
    await using kms = await startKms({ clock, decorate: faulty.decorate });
    faulty.replaced.appendAudit = () => Promise.reject(new AppError('storage_unavailable'));
    await kms.internal('/v1/export/a-dek');
    expect((await kms.internal('/ready')).status).toBe(503);
    delete faulty.replaced.appendAudit;
    clock.advance(1_000);
    expect((await kms.internal('/ready')).status).toBe(200);
    expect((await kms.records()).at(-1)).toMatchObject({
      severity: 'CRITICAL',
      action: 'audit.resumed',
      actor: 'system',
    });
  });
});

describe('a store whose file is removed', () => {
  it('releases no key, and reports that in /ready and in the log', async () => {
    await using kms = await startKms();
    const token = await kms.fullToken();
    await kms.api('/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } });
    expect((await kms.internal('/v1/export/a-dek', { token })).status).toBe(200);
    rmSync(databasePathOf(kms.dataDir));
    const refused = await kms.internal('/v1/export/a-dek', { token });
    expect(refused).toMatchObject({ status: 503 });
    expect(refused.text).not.toContain('key_material');
    await expect.poll(async () => (await kms.api('/ready')).status).toBe(503);
    expect((await kms.api('/health')).status).toBe(200);
    expect(kms.logs.some((line) => line.includes('database file was removed'))).toBe(true);
  });
});

describe('a store that hangs', () => {
  it('lets health answer, and gives all other requests an error without secrets', async () => {
    const faulty = new FaultyStore();
    await using kms = await startKms({ decorate: faulty.decorate });
    const token = await kms.fullToken();
    faulty.replaced.findActiveTokenFamily = () =>
      Promise.reject(new AppError('storage_unavailable', { cause: new Error('/var/lib') }));
    const answer = await kms.api('/v1/keys', { token });
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    expect(answer.json()).toMatchObject({ code: 'storage_unavailable' });
    expect(answer.text).not.toContain('/var/lib');
    expect((await kms.api('/health')).status).toBe(200);
  });
});

describe('metrics', () => {
  it('contain no key name, subject or address', async () => {
    await using kms = await startKms();
    const token = (
      await kms.issue({ sub: 'somebody', scope: ['kms:create_key', 'kms:export_key'], keys: ['*'] })
    ).token;
    await kms.api('/v1/keys', { token, body: { name: 'special-dek', type: 'aes-256' } });
    await kms.internal('/v1/export/special-dek', { token });
    await kms.internal('/v1/export/special-dek');
    const { text, headers } = await kms.internal('/metrics');
    expect(headers['content-type']).toContain('text/plain');
    expect(text).toContain('bunkms_exports_total{outcome="allowed"} 1');
    expect(text).toContain('bunkms_exports_total{outcome="refused"} 1');
    expect(text).toContain('route="/v1/export/:name"');
    for (const word of ['special', 'somebody', '127.0.0.1']) expect(text).not.toContain(word);
  });
});

describe('the listeners', () => {
  it('do not start on a wildcard or a foreign address, and then leave nothing open', async () => {
    const dataDir = newDataDir();
    for (const internalHost of ['0.0.0.0', '::', '192.0.2.77'])
      await expect(startBunkms({ ...configOf(dataDir, newKek()), internalHost })).rejects.toThrow(
        ConfigError,
      );
    rmSync(dataDir, { recursive: true });
  });

  it('do not start on a port in use, and then release the other one and the store', async () => {
    await using kms = await startKms();
    const dataDir = newDataDir();
    const taken = Number(new URL(kms.running.apiUrl).port);
    const config = { ...configOf(dataDir, kms.kek), logLevel: 'silent', port: taken } as const;
    await expect(startBunkms(config)).rejects.toThrow(/is in use; stop what uses it, or set BUNKMS_PORT$/);
    await (await startBunkms({ ...config, port: 0 })).close();
    rmSync(dataDir, { recursive: true });
  });

  it('can be closed more than once, and finish running requests', async () => {
    const faulty = new FaultyStore();
    await using kms = await startKms({ decorate: faulty.decorate });
    const token = await kms.fullToken();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    faulty.replaced.auditHead = async (real) => {
      reached.resolve();
      await gate.promise;
      return real();
    };
    const running = kms.api('/v1/audit/head', { token });
    await reached.promise;
    const closed = Promise.all([kms.running.close(), kms.running.close()]);
    gate.resolve();
    expect((await running).status).toBe(200);
    await closed;
    await expect(kms.api('/health')).rejects.toThrow();
  });

  it('refuse a connection from outside the subnet before they read any byte of it', async () => {
    const refused: string[] = [];
    let isPeer = false;
    const admit = guardPeers(
      () => isPeer,
      (peer) => refused.push(peer),
    );
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    await using app = createHttpServer({ logger, bodyBytesMax: 1_000, admit });
    const requests: string[] = [];
    app.get('/', async () => requests.push('/'));
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'close');
    expect([refused, requests]).toEqual([['127.0.0.1'], []]);
    isPeer = true;
    expect((await call(url, '/')).status).toBe(200);
  });

  const outside = Object.values(networkInterfaces())
    .flatMap((infos) => infos ?? [])
    .find(({ internal, family }) => !internal && family === 'IPv4');
  it.runIf(outside !== undefined)('are not reachable through another address of the machine', async () => {
    await using kms = await startKms();
    const { port } = new URL(kms.running.internalUrl);
    await expect(call(`http://${outside?.address}:${port}`, '/health')).rejects.toThrow();
  });
});
