import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { auditPageSchema } from '@bundoc/shared/contract/audit';
import {
  exportedKeySchema,
  keyDetailSchema,
  keyPageSchema,
  leasePageSchema,
} from '@bundoc/shared/contract/keys';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS, startInBackground } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { KeyVerification } from '../src/audit/verify-keys.ts';
import { verifyChain } from '../src/records/chain.ts';
import { evidenceOfInventory, noEvidence, requireReceipts } from '../src/recovery/evidence.ts';
import { restore } from '../src/recovery/restore.ts';
import { surveyArchive } from '../src/recovery/survey.ts';
import { databasePathOf, openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { MAY_ISSUE_ALL, newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import {
  auditCopyOf,
  backupOf,
  inventoryOf,
  type RestoreFrom,
  recoverFrom,
  restoreInto,
  sourceOf,
  vaultOf,
  writeProject,
} from './support/recovery.ts';

let kms: TestKms;
let keys: KeyCalls;
/** The folder of the restored store. */
let dataDir: string;
beforeEach(async () => {
  kms = await startKms();
  keys = await KeyCalls.of(kms);
  dataDir = join(newDataDir(), 'kms');
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  rmSync(join(dataDir, '..'), { recursive: true });
});

const restoreHere = (from: Omit<RestoreFrom, 'kek' | 'dataDir'>) =>
  restoreInto({ kek: kms.kek, dataDir, ...from });
const openRestored = () => startKms({ dataDir, kek: kms.kek });

/** Expects an intact chain and keys that match it. */
async function expectSound(restored: TestKms): Promise<void> {
  const { chainKey } = await restored.secrets();
  const records = await restored.records();
  expect(await verifyChain(chainKey, records)).toMatchObject({ intact: true });
  const verification = new KeyVerification();
  for (const record of records) verification.note(record);
  expect(await verification.damagedKeys(restored.store, chainKey)).toEqual([]);
}

async function statesOf(restored: TestKms): Promise<Record<string, string>> {
  const page = keyPageSchema.parse((await (await KeyCalls.of(restored)).list()).json());
  return Object.fromEntries([
    ...page.keys.map(({ name, state }) => [name, state]),
    ...(page.damaged ?? []).map((name) => [name, 'damaged']),
  ]);
}

const materialOf = async (calls: KeyCalls, name: string, version?: number) =>
  exportedKeySchema.parse((await calls.export(name, version)).json()).key_material_b64;

describe('a backup', () => {
  test('without any later evidence is refused before anything is created', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    await expect(restoreHere({ archive })).rejects.toMatchObject({ name: 'ResurrectionNotAccepted' });
    expect(existsSync(dataDir)).toBe(false);
  });

  test('that is restored with accepted resurrection has all keys disabled and no valid token, and records that in the chain', async () => {
    for (const state of ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const)
      await keys.make(`${state.replace('_', '-')}-dek`, state);
    const before = await materialOf(keys, 'enabled-dek', 1);
    const { token } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { archive, facts } = await backupOf(kms);
    await keys.export('enabled-dek');
    const later = await kms.store.auditHead();

    const report = await restoreHere({ archive, acceptResurrection: true });
    expect(report).toMatchObject({
      archive: facts.id,
      backup_audit: facts.audit,
      knowledge: 'none',
      keys: 4,
      held: ['disabled-dek', 'enabled-dek', 'pending-deletion-dek'],
      destroyed: [],
      incomplete: [],
      damaged: [],
      signing_key_kept: false,
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual({
      'destroyed-dek': 'destroyed',
      'disabled-dek': 'disabled',
      'enabled-dek': 'disabled',
      'pending-deletion-dek': 'disabled',
    });
    await expectSound(restored);
    expect((await restored.api('/v1/keys', { token })).status).toBe(401);
    expect((await restored.secrets()).publicKey.kid).not.toBe((await kms.secrets()).publicKey.kid);

    const records = await restored.records();
    expect(records[facts.audit.seq]).toMatchObject({
      severity: 'CRITICAL',
      action: 'store.restore',
      detail: {
        archive: facts.id,
        backup_seq: facts.audit.seq,
        backup_hash: facts.audit.hash,
        knowledge: 'none',
        accepted_resurrection: true,
      },
    });
    const recovered = records.filter(({ action }) => action === 'key.recover');
    expect(recovered.map(({ key, severity, detail }) => [key, severity, detail?.['state']])).toEqual([
      ['disabled-dek', 'CRITICAL', 'disabled'],
      ['enabled-dek', 'CRITICAL', 'disabled'],
      ['pending-deletion-dek', 'CRITICAL', 'disabled'],
    ]);
    expect(records.find(({ action }) => action === 'store.restored')).toMatchObject({ detail: { held: 3 } });
    // A receipt from after the backup no longer matches; one from before does, and that of the restore.
    const { chainKey } = await restored.secrets();
    expect(await verifyChain(chainKey, records, [later])).toMatchObject({
      intact: false,
      fault: { seq: later.seq, reason: 'not the record of the receipt' },
    });
    expect(await verifyChain(chainKey, records, [facts.audit, report.audit])).toMatchObject({ intact: true });

    const calls = await KeyCalls.of(restored);
    expect((await calls.export('enabled-dek')).json()).toMatchObject({ code: 'key_disabled' });
    expect((await calls.post('enabled-dek', 'enable')).status).toBe(200);
    expect(await materialOf(calls, 'enabled-dek', 1)).toBe(before);
    expect((await calls.create('destroyed-dek')).json()).toMatchObject({ code: 'key_destroyed' });
  });

  test('is restored unchanged when an inventory shows no later changes', async () => {
    for (const state of ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const)
      await keys.make(`${state.replace('_', '-')}-dek`, state);
    const { token } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { archive } = await backupOf(kms);
    const inventory = await inventoryOf(kms);
    const before = await statesOf(kms);
    const report = await restoreHere({ archive, inventory });
    expect(report).toMatchObject({
      held: [],
      destroyed: [],
      incomplete: [],
      tokens_revoked: 0,
      signing_key_kept: true,
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual(before);
    await expectSound(restored);
    expect((await restored.records()).filter(({ action }) => action === 'key.recover')).toEqual([]);
    expect((await restored.api('/v1/keys', { token })).status).toBe(200);
  });

  test.each(['inventory', 'audit copy'] as const)(
    'restores nothing that was withdrawn since, with an %s',
    async (how) => {
      const names = ['kept', 'gone', 'held', 'ending', 'secret', 'worn', 'turned', 'freed', 'policy'];
      for (const name of names) await keys.make(`${name}-dek`, 'enabled');
      await keys.post('freed-dek', 'disable');
      const revoked = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
      const kept = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
      const material = await materialOf(keys, 'turned-dek', 2);
      const { archive, facts } = await backupOf(kms);

      await keys.shred('gone-dek');
      await keys.post('held-dek', 'disable');
      await keys.delete('ending-dek', '?pending_days=9');
      await keys.patch('secret-dek', { exportable: false });
      await keys.destroyVersion('worn-dek', 1);
      await keys.post('turned-dek', 'rotate');
      await keys.post('freed-dek', 'enable');
      await keys.patch('policy-dek', { rotate_after_days: 30 });
      await keys.make('new-dek', 'enabled');
      await keys.make('short-dek', 'destroyed');
      const admin = (await kms.issue({ scope: ['kms:admin'], may_issue: MAY_ISSUE_ALL })).token;
      await kms.api(`/v1/tokens/${revoked.jti}`, { method: 'DELETE', token: admin });
      const issued = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
      const lost = await kms.issue({ typ: 'client', scope: ['docs:read'], projects: ['p'] });
      await kms.api(`/v1/tokens/${lost.jti}`, { method: 'DELETE', token: admin });
      const states = await statesOf(kms);
      const released = exportedKeySchema.parse((await keys.export('kept-dek')).json());
      const knowledge =
        how === 'inventory'
          ? { inventory: await inventoryOf(kms) }
          : { auditCopy: await auditCopyOf(kms, join(kms.dataDir, 'copy.ndjson')) };

      const report = await restoreHere({ archive, ...knowledge });
      expect(report).toMatchObject({
        knowledge: how === 'inventory' ? 'inventory' : 'audit-copy',
        held: [],
        destroyed: ['gone-dek', 'short-dek'],
        incomplete: ['new-dek', 'turned-dek'],
        damaged: [],
        tokens_revoked: 1,
        signing_key_kept: true,
      });
      expect(report.as_of.seq).toBeGreaterThan(facts.audit.seq);
      await using restored = await openRestored();
      expect(await statesOf(restored)).toEqual(states);
      await expectSound(restored);
      const calls = await KeyCalls.of(restored);
      for (const name of ['gone-dek', 'short-dek']) {
        expect((await calls.export(name)).json()).toMatchObject({ code: 'key_destroyed' });
        expect((await calls.create(name)).json()).toMatchObject({ code: 'key_destroyed' });
      }
      expect((await calls.export('held-dek')).json()).toMatchObject({ code: 'key_disabled' });
      expect((await calls.export('secret-dek')).json()).toMatchObject({ code: 'key_not_exportable' });
      const ending = keyDetailSchema.parse((await calls.read('ending-dek')).json());
      expect(ending.deletion_at).toBe(
        keyDetailSchema.parse((await keys.read('ending-dek')).json()).deletion_at,
      );
      expect((await calls.export('worn-dek', 1)).json()).toMatchObject({ code: 'key_version_destroyed' });
      expect((await calls.export('worn-dek')).status).toBe(200);
      const policy = keyDetailSchema.parse((await calls.read('policy-dek')).json());
      expect(policy).toMatchObject({ rotate_after_days: 30, next_rotation_at: expect.any(String) });
      // The number of a version that is known to exist is not reused.
      expect((await calls.export('turned-dek')).json()).toMatchObject({ code: 'key_damaged' });
      expect((await calls.post('turned-dek', 'rotate')).json()).toMatchObject({ code: 'key_damaged' });
      expect(await materialOf(calls, 'turned-dek', 2)).toBe(material);
      for (const name of ['new-dek', 'kept-dek'])
        expect((await calls.create(name)).json()).toMatchObject({ code: 'key_exists' });

      for (const [{ token }, status] of [
        [revoked, 401],
        [kept, 200],
        [issued, 200],
      ] as const)
        expect((await restored.api('/v1/keys', { token })).status).toBe(status);
      // Bundoc gets the revocation event again.
      const revokedJtis = (await restored.store.listRevoked('2020-01-01T00:00:00.000Z', { limit: 100 }))
        .items;
      expect(revokedJtis.map(({ detail }) => detail?.['token'])).toEqual(
        expect.arrayContaining([revoked.jti, lost.jti]),
      );

      const { chainKey } = await restored.secrets();
      const fault = await verifyChain(chainKey, await restored.records(), [released.audit]);
      const leases = leasePageSchema.parse(
        (
          await restored.api('/v1/keys/kept-dek/leases', {
            token: (await restored.issue({ scope: ['kms:read_key'], keys: ['*'] })).token,
          })
        ).json(),
      );
      if (how === 'inventory') {
        expect(fault).toMatchObject({ intact: false, fault: { seq: released.audit.seq } });
        expect(leases.leases.map(({ id }) => id)).not.toContain(released.lease.id);
      } else {
        // With the copy, the chain loses nothing, and neither does anything derived from it.
        expect(fault).toMatchObject({ intact: true });
        expect(leases.leases.map(({ id }) => id)).toContain(released.lease.id);
      }
    },
  );

  test('restores a key that is not in the inventory only if that is accepted, and then only that key is disabled', async () => {
    for (const name of ['a-dek', 'b-dek']) await keys.make(name, 'enabled');
    const { archive } = await backupOf(kms);
    edit(kms, `UPDATE keys SET exportable = 0 WHERE name = 'b-dek'`);
    const inventory = await inventoryOf(kms);
    expect(inventory.damaged).toEqual(['b-dek']);
    await expect(restoreHere({ archive, inventory })).rejects.toThrow(
      /lacks b-dek; use --accept-resurrection/,
    );
    expect(await restoreHere({ archive, inventory, acceptResurrection: true })).toMatchObject({
      held: ['b-dek'],
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual({ 'a-dek': 'enabled', 'b-dek': 'disabled' });
    await expectSound(restored);
  });

  test('is not restored with an inventory that is older or from another installation', async () => {
    await keys.make('a-dek', 'enabled');
    const early = await inventoryOf(kms);
    const { archive, facts } = await backupOf(kms);
    await expect(restoreHere({ archive, inventory: early })).rejects.toMatchObject({
      name: 'ResurrectionNotAccepted',
      message: expect.stringMatching(/is older than the backup/),
    });
    const other = {
      ...early,
      created_at: '2099-01-01T00:00:00.000Z',
      audit: { seq: facts.audit.seq, hash: '0'.repeat(64) },
    };
    await expect(restoreHere({ archive, inventory: other })).rejects.toMatchObject({ name: 'FileDamaged' });
    const setBack = { ...early, audit: { seq: 1_000, hash: '0'.repeat(64) } };
    await expect(restoreHere({ archive, inventory: setBack })).rejects.toThrow(/is older than the backup/);
    expect(existsSync(dataDir)).toBe(false);
  });

  test('is checked against receipts: of another history, or beyond the evidence', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive, facts } = await backupOf(kms);
    const inventory = await inventoryOf(kms);
    await keys.export('a-dek');
    const later = await kms.store.auditHead();
    const survey = await surveyArchive(vaultOf(kms.kek), sourceOf(archive), {
      receipts: [facts.audit, later],
    });
    await expect(
      surveyArchive(vaultOf(kms.kek), sourceOf(archive), {
        receipts: [{ ...facts.audit, hash: '0'.repeat(64) }],
      }),
    ).rejects.toMatchObject({ name: 'FileDamaged' });
    const knowledge = evidenceOfInventory(inventory, survey);
    requireReceipts(knowledge, [facts.audit, inventory.audit], false);
    requireReceipts(knowledge, [later], true);
    expect(() => requireReceipts(knowledge, [later], false)).toThrow(/nothing is known after/);
    expect(() => requireReceipts(knowledge, [{ ...inventory.audit, hash: '0'.repeat(64) }], true)).toThrow(
      /to another history/,
    );
  });

  test('is never restored over an existing store, even while its service runs', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    await keys.make('b-dek', 'enabled');
    const head = await kms.store.auditHead();
    await expect(
      restoreInto({ archive, kek: kms.kek, dataDir: kms.dataDir, acceptResurrection: true }),
    ).rejects.toMatchObject({ name: 'StoreNotEmpty' });
    expect(await kms.store.auditHead()).toEqual(head);
    expect((await keys.export('b-dek')).status).toBe(200);
  });

  test('that is damaged, truncated or under another KEK leaves nothing behind', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    const changed = Buffer.from(archive);
    changed[archive.length - 1] = (changed[archive.length - 1] ?? 0) ^ 1;
    for (const bad of [changed, archive.subarray(0, -1), Buffer.alloc(0)])
      await expect(restoreHere({ archive: bad, acceptResurrection: true })).rejects.toMatchObject({
        name: 'FileDamaged',
      });
    await expect(
      restoreInto({ archive, kek: newKek(), dataDir, acceptResurrection: true }),
    ).rejects.toMatchObject({ name: 'KekLacking' });
    expect(existsSync(dataDir)).toBe(false);
  });

  test('that is replaced between its check and its restore is detected, and leaves no store', async () => {
    await keys.make('a-dek', 'enabled');
    const [first, second] = [await backupOf(kms), await backupOf(kms)];
    const [one, other] = [sourceOf(first.archive), sourceOf(second.archive)];
    const survey = await surveyArchive(vaultOf(kms.kek), one);
    const openStore = () => openSqliteStore({ dataDir, onCrash: () => undefined, deadlineMs: PATIENT_MS });
    const deps = {
      vault: vaultOf(kms.kek),
      openStore,
      clock: systemClock,
      caller: {},
    };
    await expect(
      restore(deps, other, survey, noEvidence(survey), { acceptResurrection: true }),
    ).rejects.toThrow(/has changed since it was checked/);
    await using store = await openStore();
    expect(await store.readInstallation()).toBeUndefined();
    expect((await store.auditHead()).seq).toBe(0);
  });

  test('of a damaged store confines the damage to the damaged entries', async () => {
    for (const name of ['sound-dek', 'edited-dek', 'lost-dek', 'torn-dek', 'odd-dek'])
      await keys.make(name, 'enabled');
    edit(kms, (database) => {
      database.exec(`PRAGMA foreign_keys = OFF;
        UPDATE keys SET state = 'disabled' WHERE name = 'edited-dek';
        DELETE FROM keys WHERE name = 'lost-dek';
        UPDATE keys SET type = 'no-type' WHERE name = 'odd-dek';
        UPDATE key_versions SET wrapped = zeroblob(69) WHERE version = 1 AND key_id = (SELECT id FROM keys WHERE name = 'torn-dek')`);
    });
    const { archive, facts } = await backupOf(kms);
    expect(facts.left_out[0]).toBe('key odd-dek');
    const survey = await surveyArchive(vaultOf(kms.kek), sourceOf(archive));
    expect(survey.chainFault).toBeUndefined();
    expect(survey.findings.map(({ key, version }) => [key, version]).sort()).toEqual([
      ['edited-dek', undefined],
      ['lost-dek', undefined],
      ['odd-dek', undefined],
      ['torn-dek', 1],
    ]);
    const report = await restoreHere({
      archive,
      auditCopy: await auditCopyOf(kms, join(kms.dataDir, 'copy')),
    });
    expect(report.damaged).toEqual(['edited-dek', 'lost-dek', 'odd-dek']);
    await using restored = await openRestored();
    const calls = await KeyCalls.of(restored);
    for (const name of ['edited-dek', 'lost-dek', 'odd-dek']) {
      expect((await calls.export(name)).json(), name).toMatchObject({ code: 'key_damaged' });
      expect((await calls.create(name)).json()).toMatchObject({ code: 'key_exists' });
    }
    expect((await calls.export('torn-dek', 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await calls.export('torn-dek')).status).toBe(200);
    expect((await calls.export('sound-dek')).status).toBe(200);
  });

  test('with a damaged key restores that key when its state is known', async () => {
    await keys.make('a-dek', 'enabled');
    const before = [await materialOf(keys, 'a-dek', 1), await materialOf(keys, 'a-dek', 2)];
    edit(kms, `UPDATE keys SET exportable = 0`);
    const { archive } = await backupOf(kms);
    edit(kms, `UPDATE keys SET exportable = 1`);
    const inventory = await inventoryOf(kms);
    expect(await restoreHere({ archive, inventory })).toMatchObject({ keys: 1, damaged: [], incomplete: [] });
    await using restored = await openRestored();
    await expectSound(restored);
    const calls = await KeyCalls.of(restored);
    expect([await materialOf(calls, 'a-dek', 1), await materialOf(calls, 'a-dek', 2)]).toEqual(before);
  });

  test('that is restored without evidence lets its damaged or lost keys be recovered later only as disabled', async () => {
    const bundoc = join(dataDir, '..', 'bundoc');
    for (const project of ['a', 'b', 'c']) {
      await keys.create(`${project}-dek`);
      writeProject(bundoc, project, [exportedKeySchema.parse((await keys.export(`${project}-dek`)).json())]);
    }
    await keys.shred('c-dek');
    edit(
      kms,
      `PRAGMA foreign_keys = OFF; UPDATE keys SET exportable = 0 WHERE name = 'a-dek'; DELETE FROM keys WHERE name <> 'a-dek'`,
    );
    const { archive } = await backupOf(kms);
    const report = await restoreHere({ archive, acceptResurrection: true });
    expect(report).toMatchObject({ keys: 0, damaged: ['a-dek', 'b-dek', 'c-dek'] });
    await using restored = await openRestored();
    expect(await recoverFrom(restored, bundoc)).toMatchObject([
      { project: 'a', outcome: 'recovered', state: 'disabled' },
      { project: 'b', outcome: 'recovered', state: 'disabled' },
      { project: 'c', outcome: 'destroyed' },
    ]);
  });

  test('of a store with a broken audit chain reports the place, and so does the restored store', async () => {
    await keys.make('a-dek', 'enabled');
    await kms.records();
    edit(kms, 'DELETE FROM audit WHERE seq = 3');
    const { archive, facts } = await backupOf(kms);
    const fault = { seq: 3, reason: 'missing' };
    expect(facts.chain_fault).toEqual(fault);
    expect((await surveyArchive(vaultOf(kms.kek), sourceOf(archive))).chainFault).toEqual(fault);
    await restoreHere({ archive, acceptResurrection: true });
    await using restored = await openRestored();
    expect(await restored.verify()).toEqual({ intact: false, fault });
    expect(await statesOf(restored)).toEqual({ 'a-dek': 'disabled' });
  });

  test('that is made during changes of keys is always a consistent snapshot', async () => {
    let isDone = false;
    const work = async (worker: number): Promise<void> => {
      for (let n = 0; !isDone; n++) {
        const name = `w${worker}-${n}`;
        await keys.create(name);
        await keys.post(name, 'rotate');
        await keys.export(name);
        if (n % 2 === 0) await keys.shred(name);
      }
    };
    const working = startInBackground(Promise.all(Array.from({ length: 4 }, (_, worker) => work(worker))));
    const archives: Buffer[] = [];
    for (let n = 0; n < 5; n++) archives.push((await backupOf(kms)).archive);
    isDone = true;
    await working;
    for (const archive of archives) {
      const { chainFault, findings } = await surveyArchive(vaultOf(kms.kek), sourceOf(archive));
      expect({ chainFault, findings }).toEqual({ chainFault: undefined, findings: [] });
    }
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  test('is recorded before it is made, so it contains that record', async () => {
    const { archive, facts } = await backupOf(kms);
    await restoreHere({ archive, acceptResurrection: true });
    await using restored = await openRestored();
    const { token } = await restored.issue({ scope: ['kms:audit'] });
    const page = auditPageSchema.parse((await restored.api('/v1/audit?limit=500', { token })).json());
    expect(page.records[facts.audit.seq - 1]).toMatchObject({
      action: 'store.backup',
      actor: 'tester',
      detail: { archive: facts.id },
    });
  });

  test('contains nothing readable, and no bytes of destroyed keys', async () => {
    await keys.make('planted-dek', 'enabled');
    const wrapped = Buffer.from(
      exportedKeySchema.parse((await keys.export('planted-dek')).json()).wrapped_b64,
      'base64',
    );
    await keys.shred('planted-dek');
    const { archive } = await backupOf(kms);
    for (const text of ['planted-dek', 'key.create', 'aes-256']) expect(archive.includes(text)).toBe(false);
    await restoreHere({ archive, acceptResurrection: true });
    expect(existsSync(databasePathOf(dataDir))).toBe(true);
    for (const file of readdirSync(dataDir))
      expect(readFileSync(join(dataDir, file)).includes(wrapped)).toBe(false);
  });
});
