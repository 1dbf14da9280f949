import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { restore } from '../src/recovery/restore.ts';
import { surveyArchive } from '../src/recovery/survey.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { newKek } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import {
  auditCopyOf,
  backupOf,
  recoverFrom,
  restoreInto,
  sourceOf,
  vaultOf,
  writeProject,
} from './support/recovery.ts';
import {
  dataDir,
  keys,
  kms,
  materialOf,
  openRestored,
  restoreHere,
  statesOf,
  useRestores,
} from './support/restored-stores.ts';
import { expectSound } from './support/soundness.ts';

useRestores();

describe('a damaged backup', () => {
  it('a backup that is changed, truncated or under another KEK leaves nothing behind when it is refused', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    const changed = Buffer.from(archive);
    changed[archive.length - 1] = (changed[archive.length - 1] ?? 0) ^ 1;
    for (const bad of [changed, archive.subarray(0, -1), Buffer.alloc(0)])
      await expect(restoreHere({ archive: bad })).rejects.toMatchObject({
        name: 'DamagedFile',
      });
    await expect(restoreInto({ archive, kek: newKek(), dataDir })).rejects.toMatchObject({
      name: 'MissingKek',
    });
    expect(existsSync(dataDir)).toBe(false);
  });

  it('a damaged backup that replaces an intact one after its check is detected, and leaves no store', async () => {
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
    await expect(restore(deps, other, survey, undefined)).rejects.toThrow(/has changed since it was checked/);
    await using store = await openStore();
    expect(await store.readInstallation()).toBeUndefined();
    expect((await store.auditHead()).seq).toBe(0);
  });

  it('a backup of a damaged store confines the damage to the damaged entries', async () => {
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
      auditCopy: await auditCopyOf(kms),
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

  it('a damaged backup restores a damaged key if the key was repaired since', async () => {
    const bundoc = join(dataDir, '..', 'bundoc');
    await keys.create('a-dek');
    writeProject(bundoc, 'a', [exportedKeySchema.parse((await keys.export('a-dek')).json())]);
    const before = await materialOf(keys, 'a-dek');
    edit(kms, `UPDATE keys SET exportable = 0`);
    const { archive } = await backupOf(kms);
    expect(await recoverFrom(kms, bundoc)).toMatchObject([{ outcome: 'recovered', state: 'enabled' }]);
    const auditCopy = await auditCopyOf(kms);
    expect(await restoreHere({ archive, auditCopy })).toMatchObject({ keys: 1, damaged: [], incomplete: [] });
    await using restored = await openRestored();
    await expectSound(restored);
    expect(await materialOf(await KeyCalls.of(restored), 'a-dek')).toBe(before);
  });

  it('after a restore of a damaged backup without evidence, damaged or lost keys are recovered only as disabled', async () => {
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
    const report = await restoreHere({ archive });
    expect(report).toMatchObject({ keys: 0, damaged: ['a-dek', 'b-dek', 'c-dek'] });
    await using restored = await openRestored();
    expect(await recoverFrom(restored, bundoc)).toMatchObject([
      { project: 'a', outcome: 'recovered', state: 'disabled' },
      { project: 'b', outcome: 'recovered', state: 'disabled' },
      { project: 'c', outcome: 'destroyed' },
    ]);
  });

  it('a backup of a store with a broken audit chain reports the place, and so does the restored store', async () => {
    await keys.make('a-dek', 'enabled');
    await kms.records();
    edit(kms, 'DELETE FROM audit WHERE seq = 3');
    const { archive, facts } = await backupOf(kms);
    const fault = { seq: 3, reason: 'missing' };
    expect(facts.chain_fault).toEqual(fault);
    expect((await surveyArchive(vaultOf(kms.kek), sourceOf(archive))).chainFault).toEqual(fault);
    await restoreHere({ archive });
    await using restored = await openRestored();
    expect(await restored.verify()).toEqual({ intact: false, fault });
    expect(await statesOf(restored)).toEqual({ 'a-dek': 'disabled' });
  });
});
