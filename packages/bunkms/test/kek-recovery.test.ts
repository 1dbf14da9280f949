import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { completed, kekIdOfText, rotateKeks, statusOf } from './support/keks.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import { auditCopyOf, backupOf, recoverFrom, restoreInto, writeProject } from './support/recovery.ts';
import { expectSound } from './support/soundness.ts';

const NAME = 'p-dek';

let old: string;
let further: string;
let ring: string;
let kms: TestKms;
let keys: KeyCalls;
/** The folder of the restored store. */
let dataDir: string;
beforeEach(async () => {
  [old, further] = [newKek(), newKek()];
  ring = `${old}\n${further}`;
  kms = await startKms({ kek: ring });
  keys = await KeyCalls.of(kms);
  dataDir = join(newDataDir(), 'kms');
  await keys.make(NAME, 'enabled');
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  rmSync(join(dataDir, '..'), { recursive: true });
});

const exportAll = async (calls: KeyCalls) => [
  (await calls.export(NAME, 1)).json(),
  (await calls.export(NAME, 2)).json(),
];
const materialsOf = (exported: { key_material_b64: string }[]) =>
  exported.map(({ key_material_b64 }) => key_material_b64);

describe('a backup from before a rotation of the KEK', () => {
  it.each(['audit-copy', 'none'] as const)(
    'a restore with %s of a backup from before a KEK rotation rewraps every key with the current KEK',
    async (source) => {
      const before = await exportAll(keys);
      const { archive } = await backupOf(kms);
      await rotateKeks(kms);
      const knowledge = source === 'none' ? {} : { auditCopy: await auditCopyOf(kms) };
      await restoreInto({ archive, kek: ring, dataDir, ...knowledge });
      await using restored = await startKms({ dataDir, kek: ring });
      const calls = await KeyCalls.of(restored);
      if (source === 'none') expect((await calls.post(NAME, 'enable')).status).toBe(200);
      expect(materialsOf(await exportAll(calls))).toEqual(materialsOf(before));
      const current = kekIdOfText(source === 'audit-copy' ? further : old);
      expect((await statusOf(restored)).current).toBe(current);
      if (source === 'audit-copy')
        await expect
          .poll(() => restored.store.kekUses())
          .toEqual([expect.objectContaining({ kekId: current, versions: 2 })]);
      else expect(await restored.store.kekUses()).toEqual([{ kekId: current, versions: 2, secrets: 2 }]);
      await expectSound(restored);
      // Whichever the rings were: a receipt names every KEK of the remaining copies.
      const receipt = (await calls.shred(NAME)).json();
      expect(receipt.kek_ids).toContain(kekIdOfText(old));
      if (source !== 'none') expect(receipt.kek_ids).toContain(kekIdOfText(further));
    },
  );

  it('can be restored when the new KEK is lost: the former one becomes current again, with a record', async () => {
    const before = await exportAll(keys);
    const { archive } = await backupOf(kms);
    await rotateKeks(kms);
    const retirement = { kek_id: kekIdOfText(old), accept_unfetched: true };
    const retired = await kms.api('/v1/kek/retire', { token: await kms.fullToken(), body: retirement });
    expect(retired.status).toBe(200);
    const auditCopy = await auditCopyOf(kms);
    await restoreInto({ archive, kek: old, dataDir, auditCopy });
    await using restored = await startKms({ dataDir, kek: old });
    const calls = await KeyCalls.of(restored);
    expect(materialsOf(await exportAll(calls))).toEqual(materialsOf(before));
    expect((await completed(restored)).current).toBe(kekIdOfText(old));
    const rotations = (await restored.records()).filter(({ action }) => action === 'kek.rotate');
    expect(rotations.at(-1)).toMatchObject({
      severity: 'CRITICAL',
      actor: 'tester',
      detail: { kek_id: kekIdOfText(old), from: kekIdOfText(further) },
    });
    await expectSound(restored);
    expect((await calls.create('new-dek')).status).toBe(201);
  });

  it('has every key even if two rotations since have led back to the same KEK', async () => {
    await rotateKeks(kms);
    const before = await exportAll(keys);
    const { archive } = await backupOf(kms);
    await rotateKeks(kms, kekIdOfText(old));
    const auditCopy = await auditCopyOf(kms);
    await restoreInto({ archive, kek: ring, dataDir, auditCopy });
    await using restored = await startKms({ dataDir, kek: ring });
    expect(materialsOf(await exportAll(await KeyCalls.of(restored)))).toEqual(materialsOf(before));
    await expectSound(restored);
  });

  it('gets a new signing key wrapped with the KEK of its chain, whatever the first KEK of the ring', async () => {
    const { archive } = await backupOf(kms);
    await restoreInto({ archive, kek: `${further}\n${old}`, dataDir });
    await using restored = await startKms({ dataDir, kek: old });
    expect(await restored.store.kekUses()).toEqual([{ kekId: kekIdOfText(old), versions: 2, secrets: 2 }]);
  });
});

describe('a recovery from project files', () => {
  it('a recovery from project files that are older than a KEK rotation rewraps their keys with the current KEK', async () => {
    const before = await exportAll(keys);
    const bundoc = join(dataDir, '..', 'bundoc');
    writeProject(bundoc, 'p', before);
    await using fresh = await startKms({ dataDir, kek: ring });
    await rotateKeks(fresh);
    expect(await recoverFrom(fresh, bundoc)).toMatchObject([{ outcome: 'recovered', versions: [1, 2] }]);
    const calls = await KeyCalls.of(fresh);
    await calls.post(NAME, 'enable');
    const after = await exportAll(calls);
    expect(materialsOf(after)).toEqual(materialsOf(before));
    for (const { wrapped_b64 } of after)
      expect(kekIdOf(Buffer.from(wrapped_b64, 'base64'))).toBe(kekIdOfText(further));
    expect((await fresh.store.findKey(NAME, 'current'))?.record?.kekIds).toEqual(
      [old, further].map(kekIdOfText),
    );
    await expectSound(fresh);
  });

  it('restores one version of a key whose other version was rewrapped', async () => {
    const before = await exportAll(keys);
    const bundoc = join(dataDir, '..', 'bundoc');
    writeProject(bundoc, 'p', before.slice(0, 1));
    const ofKey = `key_id = (SELECT id FROM keys WHERE name = '${NAME}')`;
    edit(kms, `DELETE FROM key_versions WHERE ${ofKey} AND version = 1`);
    await rotateKeks(kms);
    expect(await recoverFrom(kms, bundoc)).toMatchObject([{ outcome: 'recovered', versions: [1] }]);
    expect(materialsOf(await exportAll(keys))).toEqual(materialsOf(before));
    await expectSound(kms);
  });
});
