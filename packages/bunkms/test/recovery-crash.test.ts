import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { KmsStore } from '../src/store/port.ts';
import { databasePathOf, openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { unseal } from '../src/vault/unseal.ts';
import { bunkms } from './support/command.ts';
import { newKek } from './support/kms.ts';
import { bunkmsProcess, spawnBunkms } from './support/process.ts';
import { vaultOf } from './support/recovery.ts';

const folder = mkdtempSync(join(tmpdir(), 'bunkms-recovery-crash-'));
const KEK = newKek();
/** How often a file is checked, milliseconds. */
const POLL_MS = 2;
/** The steps between kills grow with them. */
const RECORDS = runs(4_000, 20_000);
/** A whole restore or backup ends a test once it was killed so often before. */
const KILLS = runs(2, 4);
const environmentOf = (name: string) => ({ BUNKMS_DATA_DIR: join(folder, name), BUNKMS_KEK: KEK });
const original = environmentOf('original');
const open = (name: string): Promise<KmsStore> =>
  openSqliteStore({ dataDir: join(folder, name), onCrash: () => undefined, deadlineMs: PATIENT_MS });

beforeAll(async () => {
  for (const args of [['init'], ['key', 'create', 'a-dek'], ['key', 'rotate', 'a-dek']])
    expect((await bunkms(original, ...args)).code).toBe(0);
  await using store = await open('original');
  await unseal(vaultOf(KEK), store, systemClock, 'cli');
  const time = new Date().toISOString();
  const filler = {
    time,
    severity: 'INFO',
    action: 'filler',
    outcome: 'allowed',
    detail: { text: 'x'.repeat(100) },
  } as const;
  for (let n = 0; n < RECORDS; n += 500) await store.appendAudit(Array.from({ length: 500 }, () => filler));
  expect((await bunkms(original, 'backup', join(folder, 'backup'))).code).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

/**
 * Runs `bunkms` and kills it (SIGKILL) once a file exceeds the given size.
 *
 * @returns false when it finished before.
 */
async function killWhen(
  environment: Record<string, string>,
  args: string[],
  sizeOf: () => number,
  sizeBytes: number,
): Promise<boolean> {
  const child = spawnBunkms(environment, args);
  const exited = once(child, 'exit');
  while (child.exitCode === null && sizeOf() < sizeBytes) await delay(POLL_MS);
  child.kill('SIGKILL');
  const [, signal] = await exited;
  return signal === 'SIGKILL';
}

const sizeOf = (path: string) => () => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

it('after kill -9 at any moment of a restore there is no store or a complete one, and it can be run again', async () => {
  const restored = environmentOf('restored');
  const restore = ['restore', join(folder, 'backup')];
  const log = sizeOf(`${databasePathOf(restored.BUNKMS_DATA_DIR)}-wal`);
  let kills = 0;
  let isWhole = false;
  // The write-ahead log grows from nothing to its full size. On a busy machine a process may finish before it
  // is killed; then the loop starts again.
  for (let sizeBytes = 1; ; sizeBytes += RECORDS * 100) {
    if (isWhole) {
      rmSync(restored.BUNKMS_DATA_DIR, { recursive: true });
      sizeBytes = 1;
    }
    const isKilled = await killWhen(restored, restore, log, sizeBytes);
    await using store = await open('restored');
    const head = await store.auditHead();
    if ((await store.readInstallation()) === undefined) {
      expect([head.seq, await store.counts()]).toEqual([0, { keys: 0, tokens: 0 }]);
      expect(isKilled).toBe(true);
      kills++;
      isWhole = false;
      continue;
    }
    expect(head.seq).toBeGreaterThan(RECORDS);
    isWhole = true;
    if (kills >= KILLS) break;
  }
  expect(await bunkms(restored, ...restore)).toMatchObject({ code: 5 });
  expect(await bunkms(restored, 'audit', 'verify')).toMatchObject({ code: 0, stderr: '' });
  const { keys } = JSON.parse((await bunkms(restored, 'key', 'list', '--json')).stdout);
  expect(keys).toMatchObject([{ name: 'a-dek', state: 'disabled', version: 2 }]);
});

it('after kill -9 at any moment of a backup no file has its name, and the store is not damaged', async () => {
  const file = join(folder, 'killed');
  const unfinished = () =>
    Math.max(
      0,
      ...readdirSync(folder)
        .filter((name) => /^killed\..*\.tmp$/.test(name))
        .map((name) => sizeOf(join(folder, name))()),
    );
  let kills = 0;
  // As above.
  for (let sizeBytes = 1; ; ) {
    for (const name of readdirSync(folder)) if (name.startsWith('killed.')) rmSync(join(folder, name));
    const isKilled = await killWhen(original, ['backup', file], unfinished, sizeBytes);
    if (!existsSync(file)) {
      expect(isKilled).toBe(true);
      kills++;
      sizeBytes += RECORDS * 150;
      continue;
    }
    if (kills >= Math.min(KILLS, 3)) break;
    rmSync(file);
    sizeBytes = 1;
  }
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await bunkms(original, 'backup', 'verify', file)).toMatchObject({ code: 0, stderr: '' });
  expect((await bunkms(original, 'audit', 'verify')).code).toBe(0);
});

it('a process that starts during a restore does not create a separate installation', async () => {
  const beside = environmentOf('beside');
  const log = `${databasePathOf(beside.BUNKMS_DATA_DIR)}-wal`;
  const restore = spawnBunkms(beside, ['restore', join(folder, 'backup')]);
  const restored = once(restore, 'exit');
  while (restore.exitCode === null && sizeOf(log)() < RECORDS * 150) await delay(POLL_MS);
  // It waits for the restore, or gives up and finds no store.
  const inits = Array.from({ length: runs(2, 4) }, () => bunkmsProcess(beside, 'init'));
  const outcomes = (await Promise.all(inits)).map(({ code }) => code);
  expect(await restored).toEqual([0, null]);
  for (const code of outcomes) expect(code).toBeOneOf([0, 6]);
  await using store = await open('beside');
  const records = await store.listAudit({ limit: 10 });
  expect(records.items.filter(({ action }) => action === 'vault.initialised')).toHaveLength(1);
  await using one = await open('original');
  expect((await store.readInstallation())?.createdAt).toBe((await one.readInstallation())?.createdAt);
  expect((await bunkms(beside, 'audit', 'verify')).code).toBe(0);
});
