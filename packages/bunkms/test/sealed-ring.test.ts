import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openOutsideKey } from '../src/outside/open-key.ts';
import { runBunkms } from '../src/run-bunkms.ts';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { sealRing } from '../src/vault/sealed-ring.ts';
import { configOf, newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { TransitServer } from './support/transit-server.ts';

let folder: string;
let dataDir: string;
let kek: string;
let bao: TransitServer;
const kekFile = () => join(folder, 'kek');
const outsideKeysFile = () => join(folder, 'outside.json');

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-ring-'));
  dataDir = newDataDir();
  kek = newKek();
  bao = await TransitServer.start();
  bao.keys.set('bunkms', randomBytes(32));
  writeFileSync(join(folder, 'token'), bao.newToken());
});
afterEach(async () => {
  await bao[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
  rmSync(dataDir, { recursive: true });
});

const entryOf = (server: TransitServer) =>
  ({ kind: 'transit', url: server.url, mount: 'transit', key: 'bunkms', token_file: 'token' }) as const;

function writeEntries(keys: object): void {
  writeFileSync(outsideKeysFile(), JSON.stringify({ keys }));
}

async function sealFile(ring = kek): Promise<void> {
  const entry = { ...entryOf(bao), token_file: join(folder, 'token') };
  await using key = await openOutsideKey('bao', entry);
  writeFileSync(
    kekFile(),
    await sealRing(parseKekRing('test', ring), ['bao', 'safe'], (_, secret) => key.wrap(secret)),
  );
}

const start = (): Promise<TestKms> =>
  startKms({
    dataDir,
    kek,
    config: { kek: { kind: 'file', path: kekFile() }, outsideKeysFile: outsideKeysFile() },
  });

const readiness = async (kms: TestKms) => (await kms.api('/ready')).json();

describe('a service whose ring is sealed by an outside key', () => {
  it('opens it at its start, and works as with a plain ring', async () => {
    writeEntries({ bao: entryOf(bao) });
    await sealFile();
    await using kms = await start();
    expect(await readiness(kms)).toMatchObject({ status: 'ready' });
    const token = await kms.fullToken();
    expect((await kms.api('/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } })).status).toBe(201);
    expect((await kms.internal('/v1/export/a-dek', { token })).status).toBe(200);
  });

  it('starts while the outside key is away, says so and when it tries again, and unseals by itself', async () => {
    writeEntries({ bao: entryOf(bao) });
    await sealFile();
    const { token } = await (async () => {
      await using kms = await start();
      return { token: await kms.fullToken() };
    })();
    bao.intercept = (_request, response) => response.destroy();
    await using kms = await start();
    expect(await readiness(kms)).toMatchObject({
      status: 'sealed',
      sealed: {
        reason: 'no slot opens the sealed ring: bao is unavailable, safe is offline',
        next_try_at: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    });
    for (const listener of ['api', 'internal'] as const) {
      const answer = await kms[listener]('/v1/keys', { token });
      expect([answer.status, answer.json().code]).toEqual([503, 'sealed']);
    }
    expect((await kms.internal('/metrics')).text).toMatch(/^bunkms_sealed 1$/m);
    bao.intercept = undefined;
    await expect.poll(() => readiness(kms)).toMatchObject({ status: 'ready' });
    expect((await kms.api('/v1/keys', { token })).status).toBe(200);
    expect((await kms.internal('/metrics')).text).toMatch(/^bunkms_sealed 0$/m);
    expect(kms.logs.join('')).toContain('"unsealed"');
    // What was refused meanwhile is in the chain.
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('is sealed without an entry for its slots, and unseals when the operator corrects the file of outside keys', async () => {
    await sealFile();
    writeFileSync(outsideKeysFile(), '{"keys": {"bao": {"kind": "transit"');
    await using kms = await start();
    expect(await readiness(kms)).toMatchObject({ status: 'sealed', outside_keys_faults: 1 });
    writeEntries({ bao: entryOf(bao) });
    await expect.poll(() => readiness(kms)).toMatchObject({ status: 'ready' });
    expect(await readiness(kms)).not.toHaveProperty('outside_keys_faults');
  });

  it('is sealed by a ring that none of its slots opens, and unseals when the file is replaced by the right one', async () => {
    writeEntries({ bao: entryOf(bao) });
    await sealFile();
    const right = readFileSync(kekFile());
    // As sealed by a key that is gone.
    bao.keys.set('bunkms', randomBytes(32));
    await using kms = await start();
    expect(await readiness(kms)).toMatchObject({
      status: 'sealed',
      sealed: { reason: 'no slot opens the sealed ring: bao is damaged, safe is offline' },
    });
    for (const wrong of [right.subarray(0, 100), Buffer.from('BUNKMSR1'), Buffer.from('nonsense')]) {
      writeFileSync(kekFile(), wrong);
      await expect
        .poll(() => readiness(kms))
        .toMatchObject({ status: 'sealed', sealed: { reason: 'it could not be unsealed' } });
      writeFileSync(kekFile(), right);
      await expect
        .poll(() => readiness(kms))
        .toMatchObject({ sealed: { reason: expect.stringContaining('bao is damaged') } });
    }
    await sealFile();
    await expect.poll(() => readiness(kms)).toMatchObject({ status: 'ready' });
  });

  it('keeps the last good outside keys while their file is faulty, and says so', async () => {
    writeEntries({ bao: entryOf(bao) });
    await sealFile();
    await using kms = await start();
    writeEntries({ bao: { ...entryOf(bao), mount: '../sys' } });
    await expect.poll(() => readiness(kms)).toMatchObject({ status: 'ready', outside_keys_faults: 1 });
    expect((await kms.internal('/metrics')).text).toMatch(/^bunkms_outside_keys_file_faults 1$/m);
    expect(kms.logs.join('')).toContain('keys.bao.mount: must be a path such as');
  });

  it('reads the ring again when it is sealed while the service runs', async () => {
    writeEntries({ bao: entryOf(bao) });
    writeFileSync(kekFile(), `${kek}\n`, { mode: 0o600 });
    await using kms = await start();
    const further = newKek();
    await sealFile(`${kek}\n${further}`);
    const staged = async () => (await kms.records()).filter(({ action }) => action === 'kek.stage').length;
    await expect.poll(staged).toBe(1);
  });
});

describe('a service whose ring is withdrawn while its supervisor stops it', () => {
  it.each(['drains', 'closes'] as const)('%s, and does not come back', async (how) => {
    const execve = vi.spyOn(process, 'execve').mockImplementation(() => undefined as never);
    writeEntries({ bao: entryOf(bao) });
    await sealFile();
    const config = {
      ...configOf(dataDir, kek),
      kek: { kind: 'file', path: kekFile() } as const,
      outsideKeysFile: outsideKeysFile(),
    };
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    const running = await runBunkms(config, { logger, slotTimes: { everyMs: 20, againMs: 10 } });
    const drained = how === 'drains' ? running.drain.begin() : undefined;
    for (const token of bao.tokens.values()) token.mayUse = false;
    await running.withdrawn;
    await drained;
    await running.close();
    // Another process would be started, or an error thrown, behind the end of the service.
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    expect(execve).not.toHaveBeenCalled();
    execve.mockRestore();
  });
});

describe('a sealed service with a plain ring', () => {
  it('unseals without a restart when the right KEK is added', async () => {
    writeEntries({});
    writeFileSync(kekFile(), kek, { mode: 0o600 });
    await (await start())[Symbol.asyncDispose]();
    writeFileSync(kekFile(), newKek());
    await using kms = await start();
    expect(await readiness(kms)).toMatchObject({
      status: 'sealed',
      sealed: { reason: 'the KEK does not fit the store' },
    });
    writeFileSync(kekFile(), kek);
    await expect.poll(() => readiness(kms)).toMatchObject({ status: 'ready' });
  });
});
