import { mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BackupFolder, installationOf, LEFT_AFTER_MS } from '../src/recovery/backup-folder.ts';
import type { StoreEntry } from '../src/store/transfer.ts';
import { unseal } from '../src/vault/unseal.ts';
import { bunkms } from './support/command.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { startServer } from './support/process.ts';
import { vaultOf } from './support/recovery.ts';
import { openTestStore } from './support/storage.ts';

const HOUR_MS = 3_600_000;
/** How often the folder is looked at, milliseconds. */
const POLL_MS = 10;

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'bunkms-backups-'));
  folder = join(root, 'backups');
});
afterEach(() => rmSync(root, { recursive: true }));

const filesLike = (pattern: RegExp) => {
  try {
    return readdirSync(folder).filter((name) => pattern.test(name));
  } catch {
    return [];
  }
};
const backups = () => filesLike(/^bunkms-[0-9a-f]{8}-\d{8}T\d{6}Z\.backup$/);
const temporary = () => filesLike(/\.tmp$/);

const metric = async (kms: TestKms, name: string) => {
  const found = new RegExp(`^${name} (\\S+)$`, 'm').exec((await kms.internal('/metrics')).text)?.[1];
  return found === undefined ? undefined : Number(found);
};
const LAST = 'bunkms_last_backup_timestamp_seconds';
const FAILURES = 'bunkms_backup_failures_total';

describe('a running service with BUNKMS_BACKUP_TO', () => {
  it('backs itself up at its start, says so in a metric, and not again when it restarts within the hour', async () => {
    const beforeS = Math.floor(Date.now() / 1_000);
    const dataDir = join(root, 'data');
    const kek = newKek();
    for (let start = 0; start < 2; start++) {
      await using kms = await startKms({ dataDir, kek, config: { backupTo: folder } });
      await expect.poll(() => metric(kms, LAST)).toBeGreaterThanOrEqual(beforeS);
      expect(await metric(kms, FAILURES)).toBe(0);
      await delay(100);
      expect([backups().length, temporary()]).toEqual([1, []]);
    }
  });

  it('exports keys while a backup runs', async () => {
    const faulty = new FaultyStore();
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    faulty.replaced.readAll = async function* (real: () => AsyncIterable<readonly StoreEntry[]>) {
      for await (const batch of real()) {
        yield batch;
        reached.resolve();
        await gate.promise;
      }
    };
    await using kms = await startKms({ config: { backupTo: folder }, decorate: faulty.decorate });
    await reached.promise;
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    expect((await keys.export('a-dek')).status).toBe(200);
    expect([backups(), temporary().length]).toEqual([[], 1]);
    gate.resolve();
    await expect.poll(() => backups().length).toBe(1);
  });

  it('stops while a backup runs, and leaves no file of it', async () => {
    const faulty = new FaultyStore();
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    faulty.replaced.readAll = async function* (real: () => AsyncIterable<readonly StoreEntry[]>) {
      for await (const batch of real()) {
        yield batch;
        reached.resolve();
        await gate.promise;
      }
    };
    await using kms = await startKms({ config: { backupTo: folder }, decorate: faulty.decorate });
    await reached.promise;
    const closed = kms.running.close();
    setTimeout(() => gate.resolve(), 50);
    await closed;
    expect([backups(), temporary()]).toEqual([[], []]);
    expect(kms.logs.join('')).not.toContain('was not backed up');
  });

  it('keeps serving when its folder cannot be made, and the metric says that there is no backup', async () => {
    writeFileSync(join(root, 'file'), '');
    const config = { backupTo: join(root, 'file', 'backups') };
    await using kms = await startKms({ config });
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    expect((await keys.export('a-dek')).status).toBe(200);
    await expect.poll(() => metric(kms, FAILURES)).toBe(1);
    expect([await metric(kms, LAST), (await kms.internal('/ready')).status]).toEqual([0, 200]);
  });

  it('shows the newest backup in the metric while it is sealed, and writes none', async () => {
    const dataDir = join(root, 'data');
    await (await startKms({ dataDir, kek: newKek() }))[Symbol.asyncDispose]();
    const atMs = Math.floor(Date.now() / 1_000) * 1_000 - 5 * HOUR_MS;
    await using kms = await startKms({
      dataDir,
      kek: newKek(),
      config: { backupTo: await plantedAt(dataDir, atMs) },
    });
    await expect.poll(() => metric(kms, LAST)).toBe(atMs / 1_000);
    expect((await kms.api('/ready')).json().status).toBe('sealed');
    expect(backups()).toHaveLength(1);
  });

  it('has no such metric without the variable', async () => {
    await using kms = await startKms();
    expect(await metric(kms, LAST)).toBeUndefined();
  });
});

/** A folder with a backup of that store and time. */
async function plantedAt(dataDir: string, timeMs: number): Promise<string> {
  folder = mkdtempSync(join(root, 'planted-'));
  await using store = await openTestStore(dataDir);
  const planted = new BackupFolder(folder, () => installationOf(store));
  await planted.read(timeMs);
  writeFileSync(planted.pathOf(timeMs), 'x');
  return folder;
}

it('after kill -9 during its backup there is no half one under a good name, and the next start writes one that verifies', async () => {
  const dataDir = join(root, 'data');
  const environment = { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: newKek() };
  expect((await bunkms(environment, 'init')).code).toBe(0);
  {
    await using store = await openTestStore(dataDir);
    await unseal(vaultOf(environment.BUNKMS_KEK), store, systemClock, 'cli');
    const time = new Date().toISOString();
    const filler = { time, severity: 'INFO', action: 'filler', outcome: 'allowed' } as const;
    for (let n = 0; n < 4_000; n += 500)
      await store.appendAudit(Array.from({ length: 500 }, () => ({ ...filler, detail: { n } })));
  }
  const start = () => startServer({ ...environment, BUNKMS_BACKUP_TO: folder });
  const sizeOf = (name: string) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  // On a busy machine it may be complete before the process is killed.
  for (;;) {
    rmSync(folder, { recursive: true, force: true });
    const server = start();
    while (!temporary().some((name) => sizeOf(name) > 0) && backups().length === 0) await delay(POLL_MS);
    const { process: child, exited } = await server;
    child.kill('SIGKILL');
    await exited;
    if (backups().length === 0) break;
  }
  const [left = ''] = temporary();
  expect(left).not.toBe('');
  const longAgo = new Date(Date.now() - LEFT_AFTER_MS);
  utimesSync(join(folder, left), longAgo, longAgo);
  await using _ = await start();
  await expect.poll(() => backups().length, { timeout: PATIENT_MS }).toBe(1);
  expect(temporary()).toEqual([]);
  const verified = await bunkms(environment, 'backup', 'verify', join(folder, String(backups()[0])));
  expect([verified.code, verified.stderr]).toEqual([0, '']);
});
