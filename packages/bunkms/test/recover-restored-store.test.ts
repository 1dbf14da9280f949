import { join } from 'node:path';
import type { ExportedKey } from '@bundoc/shared/contract/keys';
import { beforeEach, describe, expect, it } from 'vitest';
import { newDataDir, startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  essenceOf,
  expectNoDamage,
  expectWhole,
  exported,
  folders,
  keys,
  kms,
  makeProject,
  NAME,
  services,
  useRecovery,
} from './support/recovered-stores.ts';
import { auditCopyOf, backupOf, recoverFrom, restoreInto, writeProject } from './support/recovery.ts';

useRecovery();

describe('a store that was restored from before a rotation', () => {
  let all: ExportedKey[];
  let restored: TestKms;
  const restoreWith = async (auditCopy?: string) => {
    const { archive } = backup;
    const dataDir = join(newDataDir(), 'kms');
    folders.push(join(dataDir, '..'));
    await restoreInto({ archive, kek: kms.kek, dataDir, ...(auditCopy && { auditCopy }) });
    restored = await startKms({ dataDir, kek: kms.kek });
    services.push(restored);
    return KeyCalls.of(restored);
  };
  let backup: Awaited<ReturnType<typeof backupOf>>;
  beforeEach(async () => {
    await makeProject('p');
    backup = await backupOf(kms);
    for (let n = 0; n < 2; n++) await keys.post(NAME, 'rotate');
    all = [];
    for (let version = 1; version <= 3; version++) all.push(await exported(keys, NAME, version));
    writeProject(bundoc, 'p', all);
  });

  it('a store from before a rotation gets newer versions from the project, and works at once with a chain copy', async () => {
    const calls = await restoreWith(await auditCopyOf(kms));
    expect(await codeOf(calls, NAME)).toBe('key_damaged');
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'enabled', versions: [2, 3] },
    ]);
    await expectWhole(restored, all);
    await expectNoDamage(restored);
    expect((await calls.post(NAME, 'rotate')).json()).toMatchObject({ version: 4 });
  });

  it('a store from before a rotation gets newer versions without a copy of the chain, but stays disabled', async () => {
    const calls = await restoreWith();
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [2, 3] },
    ]);
    expect((await calls.post(NAME, 'enable')).status).toBe(200);
    await expectWhole(restored, all);
    await expectNoDamage(restored);
  });

  it('a store from before a rotation that has been rotated differently keeps its versions, and reports a conflict', async () => {
    const calls = await restoreWith();
    await calls.post(NAME, 'enable');
    await calls.post(NAME, 'rotate');
    const made = await exported(calls, NAME, 2);
    expect(await recoverFrom(restored, bundoc)).toMatchObject([
      { outcome: 'conflict', problem: 'version 2 of the project is another key than version 2 in the store' },
    ]);
    expect(essenceOf(await exported(calls, NAME, 2))).toEqual(essenceOf(made));
    withoutRow(restored);
    expect(await recoverFrom(restored, bundoc)).toMatchObject([{ outcome: 'conflict' }]);
  });
  it('accepts no other genuine version from a row that somebody inserted than the one that was created there', async () => {
    const calls = await restoreWith();
    await calls.post(NAME, 'enable');
    await calls.post(NAME, 'rotate');
    const { kcv, wrapped_b64 } = all[1]!;
    edit(restored, (database) => {
      database.exec(`UPDATE keys SET exportable = 0`);
      database
        .prepare('UPDATE key_versions SET kcv = ?, wrapped = ? WHERE version = 2')
        .run(kcv, Buffer.from(wrapped_b64, 'base64'));
    });
    writeProject(bundoc, 'p', all.slice(0, 1));
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'enabled', versions: [], lost_versions: [2] },
    ]);
    expect(await codeOf(calls, NAME, 2)).toBe('key_damaged');
    expect((await calls.export(NAME, 1)).status).toBe(200);
  });

  const withoutRow = (at: TestKms) =>
    edit(at, `PRAGMA foreign_keys = OFF; DELETE FROM key_versions WHERE version = 2`);

  it('keeps the number of a version that is lost everywhere', async () => {
    const calls = await restoreWith(await auditCopyOf(kms));
    writeProject(bundoc, 'p', all.slice(0, 1));
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'sound', lost_versions: [2, 3] },
    ]);
    expect((await calls.post(NAME, 'rotate')).json()).toMatchObject({ code: 'key_damaged' });
  });
});
