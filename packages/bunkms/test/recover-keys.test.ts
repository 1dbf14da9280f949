import { type ExportedKey, keyDetailSchema } from '@bundoc/shared/contract/keys';
import { beforeEach, describe, expect, it } from 'vitest';
import { hideChanges } from './support/database.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  expectNoDamage,
  expectWhole,
  ID,
  keys,
  kms,
  makeProject,
  NAME,
  newService,
  services,
  useRecovery,
  withoutForeignKeys,
} from './support/recovered-stores.ts';
import { recoverFrom, writeProject } from './support/recovery.ts';

useRecovery();

describe('a key in a store', () => {
  let all: ExportedKey[];

  beforeEach(async () => {
    all = await makeProject('p', 3);
  });

  it('an intact key is not changed by a recovery', async () => {
    const before = await kms.store.findKey(NAME, 'all');
    expect(await recoverFrom(kms, bundoc)).toEqual([{ project: 'p', key: NAME, outcome: 'sound' }]);
    expect(await kms.store.findKey(NAME, 'all')).toMatchObject({
      record: before?.record,
      versions: before?.versions,
    });
  });

  it.each([
    [
      'its row is gone',
      `DELETE FROM key_versions WHERE key_id = ${ID}; DELETE FROM keys WHERE name = '${NAME}'`,
      [1, 2, 3],
    ],
    ['its row alone is gone', `DELETE FROM keys WHERE name = '${NAME}'`, [1, 2, 3]],
    ['its row was edited', `UPDATE keys SET exportable = 0 WHERE name = '${NAME}'`, []],
    ['its row was renamed', `UPDATE keys SET name = 'x' WHERE name = '${NAME}'`, [1, 2, 3]],
    [
      'its row has another id',
      `UPDATE key_versions SET key_id = 'x' WHERE key_id = ${ID}; UPDATE keys SET id = 'x' WHERE name = '${NAME}'`,
      [1, 2, 3],
    ],
    ['a version is gone', `DELETE FROM key_versions WHERE version = 1`, [1]],
    ['the current version is gone', `DELETE FROM key_versions WHERE version = 3`, [3]],
    ['a version was changed', `UPDATE key_versions SET wrapped = zeroblob(69) WHERE version = 2`, [2]],
    [
      'versions were swapped',
      `UPDATE key_versions SET version = version + 9; UPDATE key_versions SET version = CASE version WHEN 10 THEN 3 WHEN 12 THEN 1 ELSE 2 END`,
      [1, 3],
    ],
    [
      'all of it was edited',
      `UPDATE keys SET state = 'disabled' WHERE name = '${NAME}'; UPDATE key_versions SET wrapped = zeroblob(69)`,
      [1, 2, 3],
    ],
  ] as const)('is repaired when %s, to its state in the audit chain', async (_what, sql, versions) => {
    withoutForeignKeys(sql);
    expect(await recoverFrom(kms, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'enabled', versions },
    ]);
    await expectWhole(kms, all);
    await expectNoDamage(kms);
    expect(await recoverFrom(kms, bundoc)).toEqual([{ project: 'p', key: NAME, outcome: 'sound' }]);
  });

  it.each(['disable', 'delete'] as const)(
    'a key that is withdrawn by %s is repaired and stays withdrawn',
    async (how) => {
      if (how === 'disable') await keys.post(NAME, 'disable');
      else await keys.delete(NAME);
      withoutForeignKeys(`DELETE FROM keys WHERE name = '${NAME}'`);
      const state = how === 'disable' ? 'disabled' : 'pending_deletion';
      expect(await recoverFrom(kms, bundoc)).toMatchObject([{ outcome: 'recovered', state }]);
      expect(keyDetailSchema.parse((await keys.read(NAME)).json())).toMatchObject({ state });
      await expectNoDamage(kms);
    },
  );

  it('a different key with the same name is left unchanged', async () => {
    const other = await newService();
    const calls = await KeyCalls.of(other);
    await calls.create(NAME);
    const before = await other.store.findKey(NAME, 'all');
    expect(await recoverFrom(other, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'conflict', problem: 'another key has that name' },
    ]);
    expect(await other.store.findKey(NAME, 'all')).toMatchObject({ record: before?.record });
  });

  it('is not repaired from a broken chain', async () => {
    await kms.records();
    edit(
      kms,
      `PRAGMA foreign_keys = OFF; DELETE FROM keys WHERE name = '${NAME}'; DELETE FROM audit WHERE seq = 3`,
    );
    await expect(recoverFrom(kms, bundoc)).rejects.toMatchObject({
      name: 'ChainBroken',
      message: expect.stringMatching(/record 3 is missing/),
    });
  });
});

describe('a destroyed key', () => {
  beforeEach(async () => {
    await makeProject('p', 3);
  });

  it.each([
    ['as it is', ''],
    [
      'whose row is gone',
      `DELETE FROM key_versions WHERE key_id = ${ID}; DELETE FROM keys WHERE name = '${NAME}'`,
    ],
    ['whose row was edited', `UPDATE keys SET state = 'enabled', destroyed_at = NULL WHERE name = '${NAME}'`],
  ])('is never restored, %s', async (_what, sql) => {
    await keys.shred(NAME);
    withoutForeignKeys(sql);
    expect(await recoverFrom(kms, bundoc)).toEqual([{ project: 'p', key: NAME, outcome: 'destroyed' }]);
    expect(await codeOf(keys, NAME)).toBeOneOf(['key_destroyed', 'key_damaged']);
  });

  it('is not restored from a genuine older row while the index of changes hides its destruction', async () => {
    const { record, versions } = (await kms.store.findKey(NAME, 'all')) ?? {};
    await keys.shred(NAME);
    edit(kms, (database) => {
      database
        .prepare(`UPDATE keys SET state = 'enabled', revision = ?, destroyed_at = NULL, version_digests = ?`)
        .run(record?.revision ?? 0, record?.versionDigests ?? null);
      for (const { version, wrapped } of versions ?? [])
        database
          .prepare(
            `UPDATE key_versions SET state = 'available', destroyed_at = NULL, wrapped = ? WHERE version = ?`,
          )
          .run(wrapped, version);
    });
    hideChanges(kms.dataDir, 'key.destroy');
    const again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    services.push(again);
    expect((await (await KeyCalls.of(again)).export(NAME)).json()).toMatchObject({ code: 'sealed' });
    expect(await recoverFrom(again, bundoc)).toMatchObject([{ outcome: 'destroyed' }]);
  });

  it('has no destroyed version restored, whatever happened to the row of that version', async () => {
    await keys.destroyVersion(NAME, 2);
    for (const sql of [
      'SELECT 1',
      'DELETE FROM key_versions WHERE version = 2',
      `UPDATE key_versions SET state = 'available', destroyed_at = NULL, wrapped = zeroblob(69) WHERE version = 2`,
      `DELETE FROM keys WHERE name = '${NAME}'`,
    ]) {
      withoutForeignKeys(sql);
      await recoverFrom(kms, bundoc);
      expect(await codeOf(keys, NAME, 2), sql).toBeOneOf(['key_version_destroyed', 'key_damaged']);
      for (const version of [1, 3]) expect((await keys.export(NAME, version)).status, sql).toBe(200);
    }
    await expectNoDamage(kms);
    expect(await codeOf(keys, NAME, 2)).toBe('key_version_destroyed');
  });
});

describe('a key in a row', () => {
  it('a key in a row that somebody inserted without records comes back disabled', async () => {
    const [first] = await makeProject('p');
    const { record, versions } = (await kms.store.findKey(NAME, 'all')) ?? {};
    await keys.shred(NAME);
    const insertInto = (service: TestKms) =>
      edit(service, (database) => {
        database
          .prepare(
            `INSERT INTO keys (id, name, type, state, version, created_at, revision, exportable, kek_ids, version_digests)
             VALUES (?, ?, 'aes-256', 'enabled', 1, ?, 1, 1, '', x'')`,
          )
          .run(String(record?.id), NAME, String(record?.createdAt));
        for (const { keyId, version, kcv, createdAt, wrapped } of versions ?? [])
          database
            .prepare(
              "INSERT INTO key_versions (key_id, version, kcv, state, created_at, wrapped) VALUES (?, ?, ?, 'available', ?, ?)",
            )
            .run(keyId, version, kcv, createdAt, wrapped);
      });
    // With a version that is in the project's file, and with one that is not.
    for (const version of [1, 1_001]) {
      const service = await newService();
      insertInto(service);
      writeProject(bundoc, 'p', [{ ...first!, version }]);
      expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'recovered', state: 'disabled' }]);
    }
  });
});
