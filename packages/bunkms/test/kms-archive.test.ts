import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startMoto } from '@bundoc/shared/testing/moto-process';
import { needs } from '@bundoc/shared/testing/programs';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'bunkms-archive-'));
});
afterEach(() => rmSync(root, { recursive: true }));

/** Runs a command that succeeds, on a machine without any setting but those given. */
async function run(args: readonly string[], environment: Record<string, string> = {}) {
  const { code, stdout, stderr } = await bunkms(environment, ...args, '--json');
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout);
}

const materialOf = async (keys: KeyCalls) => String((await keys.export('a-dek')).json().key_material_b64);

/** Resolves once the archive has a backup, and every record of the chain. */
async function shipped(kms: TestKms, archive: string): Promise<void> {
  const head = (await kms.records()).at(-1)?.seq;
  const known = async () => {
    const { code, stdout } = await bunkms({}, 'archive', 'list', '--from', archive, '--json');
    const { backups = [], last_record = 0 } = code === 0 ? JSON.parse(stdout) : {};
    return backups.length > 0 ? last_record : 0;
  };
  await expect.poll(known, { timeout: PATIENT_MS }).toBeGreaterThanOrEqual(Number(head));
}

/** Loses a machine, and then the one that came into its place. */
async function survivesTwoLosses(archive: string): Promise<void> {
  const kek = newKek();
  const machine = (name: string) => ({ dataDir: join(root, name), kek });
  const startOn = (name: string) => startKms({ ...machine(name), config: { archive } });
  const replace = async (lost: string, name: string) => {
    rmSync(join(root, lost), { recursive: true });
    const { file, audit_copy } = await run([
      'archive',
      'fetch',
      '--from',
      archive,
      '--to',
      join(root, `${name}-copies`),
    ]);
    const environment = { BUNKMS_DATA_DIR: join(root, name), BUNKMS_KEK: kek };
    return await run(['restore', file, '--audit-copy', audit_copy], environment);
  };
  let [a, end] = ['', 0];
  {
    await using before = await startKms(machine('first'));
    const keys = await KeyCalls.of(before);
    for (const name of ['a-dek', 'b-dek']) expect((await keys.create(name)).status).toBe(201);
    a = await materialOf(keys);
  }
  {
    await using kms = await startOn('first');
    await shipped(kms, archive);
    // Only the chain tells of what comes after the backup.
    const keys = await KeyCalls.of(kms);
    expect((await keys.post('b-dek', 'disable')).status).toBe(200);
    await shipped(kms, archive);
    end = (await kms.records()).length;
  }
  expect(await replace('first', 'second')).toMatchObject({
    as_of: { seq: end },
    knowledge: 'audit-copy',
    held: [],
  });
  {
    await using kms = await startOn('second');
    const keys = await KeyCalls.of(kms);
    expect(await materialOf(keys)).toBe(a);
    expect((await keys.read('b-dek')).json().state).toBe('disabled');
    expect((await kms.verify()).intact).toBe(true);
    expect((await kms.records()).slice(end).map(({ action }) => action)).toContain('chain.restored');
    expect((await keys.post('b-dek', 'enable')).status).toBe(200);
    await shipped(kms, archive);
    end = (await kms.records()).length;
  }
  expect(await replace('second', 'third')).toMatchObject({ as_of: { seq: end }, held: [] });
  await using kms = await startOn('third');
  const keys = await KeyCalls.of(kms);
  expect(await materialOf(keys)).toBe(a);
  expect((await keys.read('b-dek')).json().state).toBe('enabled');
  expect((await kms.verify()).intact).toBe(true);
}

describe('the archive of BunKMS', () => {
  it('in a folder has all that a lost machine had, and continues with the one in its place', async () => {
    const archive = join(root, 'archive');
    mkdirSync(archive);
    await survivesTwoLosses(archive);
    const [installation = ''] = readdirSync(join(archive, 'bunkms'));
    const objects = readdirSync(join(archive, 'bunkms', installation, 'chain'), { recursive: true });
    const first = objects.flatMap((path) => /\/(\d{16})-/.exec(String(path))?.[1] ?? []);
    // No machine has shipped what was there.
    expect([first.length > 2, new Set(first).size]).toEqual([true, first.length]);
  });

  it(
    'in a bucket has all that a lost machine had, and continues with the one in its place',
    needs('moto'),
    async () => {
      await using moto = await startMoto();
      expect((await fetch(`${moto.url}/bucket`, { method: 'PUT' })).status).toBe(200);
      const credentials = join(root, 'credentials');
      writeFileSync(credentials, '[default]\naws_access_key_id = AKIAX\naws_secret_access_key = x\n');
      await survivesTwoLosses(`s3://bucket/kms?endpoint=${moto.url}&credentials=${credentials}`);
    },
  );
});
