import { RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { plant } from './support/planted-trigger.ts';
import type { PostgresDatabases } from './support/postgres.ts';
import { testStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

const NAME = 'a-dek';

describe('a chain in SQLite that has lost records', () => canBeAccepted(async () => ({})));

describe('a chain in PostgreSQL that has lost records', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  usePostgresStorage((started) => {
    databases = started;
  });
  canBeAccepted(async (dataDir) => ({ BUNKMS_STORAGE: await databases.url(dataDir) }));
});

function canBeAccepted(storageOf: (dataDir: string) => Promise<Record<string, string>>): void {
  let kms: TestKms;
  let keys: KeyCalls;
  let token: string;
  beforeEach(async () => {
    kms = await startKms({ watchEveryMs: 100 });
    keys = await KeyCalls.of(kms);
    token = await kms.fullToken();
    expect((await keys.create(NAME)).status).toBe(201);
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const command = async (...args: string[]) =>
    bunkms({ BUNKMS_DATA_DIR: kms.dataDir, BUNKMS_KEK: kms.kek, ...(await storageOf(kms.dataDir)) }, ...args);
  const status = async () => (await kms.api('/ready')).json().status as string;
  /** Exports a key, and cuts its record off. @returns its receipt. */
  const lose = async () => {
    const { seq } = await kms.store.auditHead();
    const receipt = String((await keys.export(NAME)).headers[RECEIPT_HEADER]);
    await testStorage().edit(kms.dataDir, `DELETE FROM audit WHERE seq > ${seq}`);
    await expect.poll(status).toBe('sealed');
    return receipt;
  };
  const returning = (receipt: string) =>
    kms.internal(`/v1/export/${NAME}`, { token, headers: { [RECEIPT_HEADER]: receipt } });

  it('is accepted by a CRITICAL record, after which the service answers and older receipts prove nothing', async () => {
    const receipt = await lose();
    const unconfirmed = await command('audit', 'accept-loss');
    expect([unconfirmed.code, unconfirmed.stderr]).toEqual([2, expect.stringContaining('add --confirm')]);
    expect(await status()).toBe('sealed');
    const accepted = await command('audit', 'accept-loss', '--confirm', '--json');
    expect([accepted.code, accepted.stderr]).toEqual([0, '']);
    await expect.poll(status).toBe('ready');
    expect((await returning(receipt)).status).toBe(200);
    const record = (await kms.records()).find(({ action }) => action === 'chain.restored');
    expect(record).toMatchObject({
      ...JSON.parse(accepted.stdout),
      severity: 'CRITICAL',
      detail: { accepted: 'loss', epoch: expect.any(Number) },
    });
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('seals the service again when that record is cut off, too', async () => {
    const receipt = await lose();
    await command('audit', 'accept-loss', '--confirm');
    await expect.poll(status).toBe('ready');
    const newer = String((await keys.export(NAME)).headers[RECEIPT_HEADER]);
    await kms.running.close();
    await testStorage().edit(
      kms.dataDir,
      `DELETE FROM audit WHERE seq >= (SELECT min(seq) FROM audit WHERE action = 'chain.restored')`,
    );
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    const headers = { [RECEIPT_HEADER]: newer };
    expect((await again.internal(`/v1/export/${NAME}`, { token, headers })).json().code).toBe('sealed');
    await expect
      .poll(async () => (await again.api('/ready')).json().faults)
      .toEqual([expect.stringMatching(/^the audit chain lacks the restore of 20\d\d-/)]);
    expect(receipt).not.toBe(newer);
  });

  it('is not accepted while the schema has a foreign object, which the command, doctor and audit verify name', async () => {
    const remove = await plant(kms.dataDir, {
      table: 'audit',
      event: 'INSERT',
      when: 'before',
      of: "NEW.action = 'chain.restored'",
    } as const);
    const fault = 'trigger planted on audit';
    for (const args of [['audit', 'accept-loss', '--confirm'], ['audit', 'verify'], ['doctor']]) {
      const { code, stdout, stderr } = await command(...args);
      expect([args, code, `${stdout}${stderr}`]).toEqual([args, 1, expect.stringContaining(fault)]);
    }
    expect(JSON.parse((await command('audit', 'verify', '--json')).stdout)).toMatchObject({
      foreign_objects: [fault],
    });
    await remove();
    expect((await command('audit', 'verify')).code).toBe(0);
  });

  it('lets no command write, and the command says why', async () => {
    await plant(kms.dataDir, {
      table: 'keys',
      event: 'UPDATE',
      when: 'before',
      of: "NEW.state = 'disabled'",
    });
    const disabled = await command('key', 'disable', NAME);
    expect([disabled.code, disabled.stderr]).toEqual([6, expect.stringContaining('trigger planted on keys')]);
    expect((await kms.store.findKey(NAME, 'current'))?.record?.state).toBe('enabled');
  });
}
