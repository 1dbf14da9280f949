import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '@bundoc/shared/testing/free-port';
import { memoryHolds } from '@bundoc/shared/testing/process-memory';
import { ServiceProcess } from '@bundoc/shared/testing/service-process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openOutsideKey } from '../src/outside/open-key.ts';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { sealRing } from '../src/vault/sealed-ring.ts';
import { call } from './support/http.ts';
import { newDataDir, newKek } from './support/kms.ts';
import { bunkmsProcess, serverVariables } from './support/process.ts';
import { TransitServer } from './support/transit-server.ts';

const MAIN = fileURLToPath(new URL('./support/run-with-short-times.ts', import.meta.url));

let folder: string;
let dataDir: string;
let bao: TransitServer;
let token: string;
const kek = newKek();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-withdrawn-'));
  dataDir = newDataDir();
  bao = await TransitServer.start();
  bao.keys.set('bunkms', randomBytes(32));
  token = bao.newToken();
  writeFileSync(join(folder, 'token'), token);
  const entry = {
    kind: 'transit',
    url: bao.url,
    mount: 'transit',
    key: 'bunkms',
    token_file: 'token',
  } as const;
  writeFileSync(join(folder, 'outside.json'), JSON.stringify({ keys: { bao: entry } }));
  await using key = await openOutsideKey('bao', { ...entry, token_file: join(folder, 'token') });
  const ring = await sealRing(parseKekRing('test', kek), ['bao', 'safe'], (_, secret) => key.wrap(secret));
  writeFileSync(join(folder, 'kek'), ring, { mode: 0o600 });
});
afterEach(async () => {
  await bao[Symbol.asyncDispose]();
  for (const made of [folder, dataDir]) rmSync(made, { recursive: true });
});

/** Its owner allows the use of the outside key, or forbids it. */
function allow(mayUse: boolean): void {
  const held = bao.tokens.get(token);
  if (held !== undefined) held.mayUse = mayUse;
}

describe('a running service whose only online slot is withdrawn by its owner', () => {
  it('drops its keys from the memory after three denials, is sealed, says so, and unseals when it is allowed again', async () => {
    const [port, internalPort] = [await freePort(), await freePort()];
    const environment = serverVariables({
      BUNKMS_DATA_DIR: dataDir,
      BUNKMS_KEK_FILE: join(folder, 'kek'),
      BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside.json'),
      BUNKMS_PORT: String(port),
      BUNKMS_INTERNAL_PORT: String(internalPort),
    });
    const api = (path: string, more?: Parameters<typeof call>[2]) =>
      call(`http://127.0.0.1:${port}`, path, more);
    const internal = (path: string, more?: Parameters<typeof call>[2]) =>
      call(`http://127.0.0.1:${internalPort}`, path, more);
    const readiness = async () =>
      await api('/ready').then(
        (answer) => answer.json(),
        // It listens again in a moment.
        () => undefined,
      );
    const bunkms = async (...args: string[]) => {
      const { code, stdout, stderr } = await bunkmsProcess(environment, ...args);
      expect(code, stderr).toBe(0);
      return stdout.trim();
    };

    await using service = (await ServiceProcess.start(MAIN, environment, 'listening')).service;
    const scope = ['--scope', 'kms:create_key kms:export_key', '--keys', '*'];
    const bearer = await bunkms('token', 'issue', '--typ', 'service', '--sub', 'test', ...scope);
    const exported = () => internal('/v1/export/a-dek', { token: bearer });
    expect((await api('/v1/keys', { token: bearer, body: { name: 'a-dek', type: 'aes-256' } })).status).toBe(
      201,
    );
    expect((await exported()).status).toBe(200);
    const holdsKek = () => memoryHolds(service.process.pid ?? 0, Buffer.from(kek, 'base64'));
    const isLinux = process.platform === 'linux';
    if (isLinux) expect(holdsKek()).toBe(true);

    allow(false);
    await expect.poll(readiness).toMatchObject({
      status: 'sealed',
      sealed: { reason: 'no slot opens the sealed ring: bao is denied, safe is offline' },
    });
    expect((await exported()).json()).toMatchObject({ status: 503, code: 'sealed' });
    if (isLinux) expect(holdsKek()).toBe(false);
    expect(service.log).toContain('the ring is withdrawn');
    // The same process for its supervisor.
    expect(service.process.exitCode).toBe(null);

    allow(true);
    await expect.poll(readiness).toMatchObject({ status: 'ready' });
    expect((await exported()).status).toBe(200);
    const records = await bunkms('audit', 'list', '--severity', 'CRITICAL', '--json');
    expect(records).toMatch(/"action":\s*"seal.withdrawn"/);
  });

  it('goes on while the slot is away, or our own credential is refused, however long', async () => {
    const environment = serverVariables({
      BUNKMS_DATA_DIR: dataDir,
      BUNKMS_KEK_FILE: join(folder, 'kek'),
      BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside.json'),
    });
    const { service, record } = await ServiceProcess.start(MAIN, environment, 'listening');
    await using running = service;
    const slots = async (state: string) => {
      const { text } = await call(String(record['internalUrl']), '/metrics');
      return new RegExp(`^bunkms_seal_slots\\{state="${state}"\\} (\\d)$`, 'm').exec(text)?.[1];
    };
    const asked = async (times: number) => {
      const before = bao.asked.length;
      await expect.poll(() => bao.asked.length - before).toBeGreaterThan(times);
    };
    await expect.poll(() => slots('opens')).toBe('1');
    bao.intercept = (_request, response) => response.destroy();
    await asked(5);
    expect([await slots('unavailable'), await slots('offline')]).toEqual(['1', '1']);
    bao.intercept = undefined;
    const held = bao.tokens.get(token);
    if (held !== undefined) held.isValid = false;
    await asked(10);
    expect(await slots('unavailable')).toBe('1');
    expect((await call(String(record['apiUrl']), '/ready')).json()).toMatchObject({ status: 'ready' });
    expect(running.log).toContain('a slot does not open the ring');
    expect(running.log).not.toContain('the ring is withdrawn');
  });
});
