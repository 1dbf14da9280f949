import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import {
  auditCopyOf,
  backupOf,
  type RestoreFrom,
  recoverFrom,
  restoreInto,
  writeProject,
} from './support/recovery.ts';
import { TestStorageNode } from './support/storages.ts';

let folder: string;
let kms: TestKms;
let s: TestStorageNode;
let t: TestStorageNode;
const move = randomUUID();
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-holders-'));
  kms = await startKms();
  s = await TestStorageNode.of(kms);
  t = await TestStorageNode.of(kms);
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const snapshotOf = async (at: TestKms, name: string) => {
  const record = (await at.store.findKey(name, 'current'))?.record;
  return [record?.state, record?.holder, record?.offer, record?.intendedAt];
};

describe('after the restore of a backup', () => {
  /**
   * Creates keys that are held, offered, accepted by another, with an intent, shredded, and without a holder.
   * The third step of each comes after the backup.
   */
  async function makeKeys() {
    for (const name of ['held-dek', 'offered-dek', 'moved-dek', 'intended-dek', 'shredded-dek'])
      await s.create(name);
    await (await KeyCalls.of(kms)).create('free-dek');
    for (const name of ['offered-dek', 'moved-dek']) await s.act('offer', name, { to: t.id, move });
    const { archive } = await backupOf(kms);
    await t.act('accept', 'moved-dek', { move });
    const intended = await s.intend('intended-dek');
    const { receipt } = await s.intend('shredded-dek');
    expect((await s.act('shred', 'shredded-dek', { receipt })).status).toBe(200);
    await t.act('claim', 'free-dek');
    return { archive, intendedAt: intended.intended_at };
  }

  async function restored(from: Omit<RestoreFrom, 'kek' | 'dataDir'>): Promise<TestKms> {
    const dataDir = join(folder, randomUUID());
    await restoreInto({ kek: kms.kek, dataDir, ...from });
    return startKms({ dataDir, kek: kms.kek });
  }

  it('keys have the holders, offers and intents in the copy of the audit chain', async () => {
    const { archive, intendedAt } = await makeKeys();
    await using again = await restored({ archive, auditCopy: await auditCopyOf(kms) });
    expect(await snapshotOf(again, 'held-dek')).toEqual(['enabled', s.id, null, null]);
    expect(await snapshotOf(again, 'offered-dek')).toEqual([
      'enabled',
      s.id,
      { to: t.id, move, generation: s.generation },
      null,
    ]);
    expect(await snapshotOf(again, 'moved-dek')).toEqual(['enabled', t.id, null, null]);
    expect(await snapshotOf(again, 'intended-dek')).toEqual(['pending_deletion', s.id, null, intendedAt]);
    expect(await snapshotOf(again, 'shredded-dek')).toMatchObject(['destroyed', s.id, null, {}]);
    expect(await snapshotOf(again, 'free-dek')).toEqual(['enabled', t.id, null, null]);
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  it('a key without later evidence has an unknown holder, and no offer or intent', async () => {
    const { archive } = await makeKeys();
    await using again = await restored({ archive });
    for (const name of ['held-dek', 'offered-dek', 'moved-dek', 'intended-dek', 'free-dek'])
      expect([name, await snapshotOf(again, name)]).toEqual([name, ['disabled', 'unknown', null, null]]);
    const keys = await KeyCalls.of(again);
    await keys.post('held-dek', 'enable');
    expect((await keys.export('held-dek')).status).toBe(200);
    const storage = await TestStorageNode.of(again);
    expect((await storage.export('held-dek')).json()).toMatchObject({ code: 'key_unheld' });
    expect((await storage.act('claim', 'held-dek')).json()).toMatchObject({ code: 'key_unheld' });
  });
});

describe('a key that is rebuilt from a project file', () => {
  it('has an unknown holder', async () => {
    await s.create('p-dek');
    writeProject(folder, 'p', [exportedKeySchema.parse((await s.export('p-dek')).json())]);
    await using service = await startKms({ kek: kms.kek });
    expect(await recoverFrom(service, folder)).toMatchObject([{ outcome: 'recovered' }]);
    expect(await snapshotOf(service, 'p-dek')).toEqual(['disabled', 'unknown', null, null]);
  });
});
