import type { DatabaseSync } from 'node:sqlite';
import { keyDetailSchema, keyPageSchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hideChanges, withDatabase } from './support/database.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { edit, infoIn, KeyCalls } from './support/lifecycle.ts';
import { damagedKeys } from './support/soundness.ts';

const NAME = 'a-dek';
const OTHER = 'b-dek';
const OF_A = `WHERE name = '${NAME}'`;
const ID_OF_A = `(SELECT id FROM keys ${OF_A})`;

/** The rows of a key in the database. */
interface Rows {
  readonly keys: Row[];
  readonly key_versions: Row[];
}
type Row = Record<string, string | number | null | Uint8Array>;

function withoutForeignKeys<T>(kms: TestKms, use: (database: DatabaseSync) => T): T {
  return withDatabase(kms.dataDir, use, { enableForeignKeyConstraints: false });
}

function rowsOf(kms: TestKms): Rows {
  return withoutForeignKeys(kms, (database) => ({
    keys: database.prepare(`SELECT * FROM keys ${OF_A}`).all() as Row[],
    key_versions: database.prepare(`SELECT * FROM key_versions WHERE key_id = ${ID_OF_A}`).all() as Row[],
  }));
}

function putBack(kms: TestKms, rows: Rows): void {
  withoutForeignKeys(kms, (database) => {
    database.exec(`DELETE FROM key_versions WHERE key_id = ${ID_OF_A}; DELETE FROM keys ${OF_A}`);
    for (const [table, all] of Object.entries(rows) as [string, Row[]][])
      for (const row of all)
        database
          .prepare(`INSERT INTO ${table} (${Object.keys(row)}) VALUES (${Object.keys(row).map(() => '?')})`)
          .run(...Object.values(row));
  });
}

describe('a key whose record was changed in the database', () => {
  let kms: TestKms;
  let keys: KeyCalls;
  beforeEach(async () => {
    // Its own look at the chain would seal it.
    kms = await startKms({ watchEveryMs: 3_600_000 });
    keys = await KeyCalls.of(kms);
    for (const name of [NAME, OTHER]) {
      await keys.create(name, { rotate_after_days: 30 }, { 'idempotency-key': name });
      await keys.post(name, 'rotate');
    }
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const expectDamaged = async (listed = true) => {
    const before = await kms.store.findKey(NAME, 'all');
    for (const call of [
      () => keys.export(NAME),
      () => keys.export(NAME, 1),
      () => keys.read(NAME),
      () => keys.post(NAME, 'rotate'),
      () => keys.post(NAME, 'enable'),
      () => keys.post(NAME, 'disable'),
      () => keys.post(NAME, 'restore'),
      () => keys.patch(NAME, { exportable: false }),
      () => keys.delete(NAME),
      () => keys.shred(NAME),
      () => keys.destroyVersion(NAME, 1),
    ])
      expect((await call()).json()).toMatchObject({ status: 503, code: 'key_damaged' });
    expect((await keys.create(NAME)).json()).toMatchObject({ status: 409, code: 'key_exists' });
    expect(await kms.store.findKey(NAME, 'all')).toEqual(before);
    const page = keyPageSchema.strict().parse((await keys.list()).json());
    if (listed) expect(page.damaged).toEqual([NAME]);
    expect(page.keys).toMatchObject([{ name: OTHER }]);
    // Only this key is affected.
    expect((await keys.export(OTHER)).status).toBe(200);
    expect((await kms.api('/ready')).status).toBe(200);
  };

  it.each([
    ['its state', `UPDATE keys SET state = 'disabled' ${OF_A}`],
    ['its state, to none that exists', `UPDATE keys SET state = 'open' ${OF_A}`],
    ['its current version', `UPDATE keys SET version = 1 ${OF_A}`],
    ['its revision', `UPDATE keys SET revision = revision + 1 ${OF_A}`],
    ['its exportability', `UPDATE keys SET exportable = 0 ${OF_A}`],
    ['its policy', `UPDATE keys SET rotate_after_days = 31 ${OF_A}`],
    ['its policy, taken away', `UPDATE keys SET rotate_after_days = NULL ${OF_A}`],
    ['the time at which it is due', `UPDATE keys SET due_at = NULL ${OF_A}`],
    ['the time at which it was made', `UPDATE keys SET created_at = '2020-01-01T00:00:00.000Z' ${OF_A}`],
    ['its list of KEKs', `UPDATE keys SET kek_ids = '' ${OF_A}`],
    ['its idempotency key', `UPDATE keys SET idempotency_key = NULL ${OF_A}`],
    ['the request that made it', `UPDATE keys SET idempotency_request = 'x' ${OF_A}`],
    ['the digests of its versions', `UPDATE keys SET version_digests = zeroblob(64) ${OF_A}`],
    ['the end of those digests', `UPDATE keys SET version_digests = x'' ${OF_A}`],
    [
      'its audit record',
      `UPDATE audit SET detail = replace(detail, '"revision":2', '"revision":3') WHERE key = '${NAME}'`,
    ],
    [
      'the time of its audit record',
      `UPDATE audit SET time = '2020-01-01T00:00:00.000Z' WHERE key = '${NAME}'`,
    ],
  ])('a record that was changed in %s makes only its key damaged and unusable', async (_what, sql) => {
    edit(kms, sql);
    await expectDamaged();
  });

  it('a key whose id was changed in the database is damaged', async () => {
    withoutForeignKeys(kms, (database) => database.exec(`UPDATE keys SET id = 'x' ${OF_A}`));
    await expectDamaged();
  });

  it('a key whose record and versions were removed from the database is damaged, not unknown', async () => {
    withoutForeignKeys(kms, (database) =>
      database.exec(`DELETE FROM key_versions WHERE key_id = ${ID_OF_A}; DELETE FROM keys ${OF_A}`),
    );
    await expectDamaged(false);
  });

  it('a key that was renamed in the database is damaged under both names', async () => {
    edit(kms, `UPDATE keys SET name = 'c-dek' ${OF_A}`);
    for (const name of [NAME, 'c-dek']) {
      expect((await keys.export(name)).json()).toMatchObject({ code: 'key_damaged' });
      expect((await keys.create(name)).json()).toMatchObject({ code: 'key_exists' });
    }
    expect(keyPageSchema.parse((await keys.list()).json()).damaged).toEqual(['c-dek']);
  });

  it('two keys that swapped names in the database are both damaged', async () => {
    edit(
      kms,
      `UPDATE keys SET name = 'x' ${OF_A}; UPDATE keys SET name = '${NAME}' WHERE name = '${OTHER}';
       UPDATE keys SET name = '${OTHER}' WHERE name = 'x'`,
    );
    for (const name of [NAME, OTHER])
      expect((await keys.export(name)).json()).toMatchObject({ code: 'key_damaged' });
  });

  it('a key whose rows were replaced by genuine older ones is damaged, even after a restart', async () => {
    const older = rowsOf(kms);
    await keys.post(NAME, 'disable');
    putBack(kms, older);
    await expectDamaged();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    expect((await (await KeyCalls.of(again)).export(NAME)).json()).toMatchObject({ code: 'key_damaged' });
  });

  it('does not come back with its genuine older row once it is destroyed', async () => {
    const older = rowsOf(kms);
    expect((await keys.shred(NAME)).status).toBe(200);
    putBack(kms, older);
    await expectDamaged();
  });

  it('a key that was rolled back together with its audit record is found by the verification of the chain', async () => {
    const older = rowsOf(kms);
    await keys.post(NAME, 'disable');
    const { seq } = await kms.store.auditHead();
    await keys.post(OTHER, 'disable');
    putBack(kms, older);
    edit(kms, `DELETE FROM audit WHERE key = '${NAME}' AND action = 'key.disable'`);
    expect(await kms.verify()).toMatchObject({ intact: false, fault: { seq, reason: 'missing' } });
  });

  it('a key that was rolled back with its latest change hidden is not used by a process that has read that change', async () => {
    const older = rowsOf(kms);
    await keys.post(NAME, 'disable');
    expect(await damagedKeys(kms)).toEqual([]);
    putBack(kms, older);
    expect(await damagedKeys(kms)).toEqual([NAME]);
    hideChanges(kms.dataDir, 'key.disable');
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    expect((await (await KeyCalls.of(again)).export(NAME)).json()).toMatchObject({ code: 'sealed' });
    expect(await again.verify()).toMatchObject({ intact: true });
    expect(await damagedKeys(again)).toEqual([NAME]);
  });

  it.each([
    ['its check value', `kcv = '${'0'.repeat(32)}'`],
    ['its state', `state = 'destroyed'`],
    ['the time at which it was made', `created_at = '2020-01-01T00:00:00.000Z'`],
    [
      'the bytes of the next version',
      `wrapped = (SELECT wrapped FROM key_versions WHERE key_id = ${ID_OF_A} AND version = 2)`,
    ],
    [
      'the bytes of another key',
      `wrapped = (SELECT wrapped FROM key_versions WHERE key_id <> ${ID_OF_A} AND version = 1)`,
    ],
  ])('a key whose version was changed by %s is damaged only in that version', async (_what, set) => {
    edit(kms, `UPDATE key_versions SET ${set} WHERE key_id = ${ID_OF_A} AND version = 1`);
    expect((await keys.export(NAME, 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await keys.destroyVersion(NAME, 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await keys.export(NAME)).status).toBe(200);
    const detail = keyDetailSchema.strict().parse((await keys.read(NAME)).json());
    expect(detail.damaged_versions).toEqual([1]);
    expect(detail.versions).toMatchObject([{ version: 2 }]);
    expect(infoIn(await keys.post(NAME, 'rotate'))).toMatchObject({ version: 3 });
    // The complete key can still be destroyed.
    expect((await keys.shred(NAME)).status).toBe(200);
  });

  it('a key whose destroyed version got its bytes back is damaged in that version', async () => {
    const older = rowsOf(kms);
    await keys.destroyVersion(NAME, 1);
    const [first] = older.key_versions;
    withoutForeignKeys(kms, (database) =>
      database
        .prepare(
          `UPDATE key_versions SET state = 'available', destroyed_at = NULL, wrapped = ? WHERE key_id = ? AND version = 1`,
        )
        .run(first?.['wrapped'] ?? null, first?.['key_id'] ?? null),
    );
    expect((await keys.export(NAME, 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await keys.export(NAME)).status).toBe(200);
  });

  it('a key does not get a version that was added in the database', async () => {
    edit(
      kms,
      `INSERT INTO key_versions (key_id, version, kcv, state, created_at, wrapped)
         SELECT key_id, 3, kcv, state, created_at, wrapped FROM key_versions WHERE key_id = ${ID_OF_A} AND version = 1`,
    );
    expect((await keys.export(NAME, 3)).json()).toMatchObject({ code: 'key_not_found' });
    expect(keyDetailSchema.parse((await keys.read(NAME)).json()).versions).toHaveLength(2);
    expect(infoIn(await keys.post(NAME, 'rotate'))).toMatchObject({ version: 3 });
    expect((await keys.export(NAME, 3)).status).toBe(200);
  });
});
