import { execFileSync } from 'node:child_process';
import { hash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { type ExportedKey, exportedKeySchema, keyDetailSchema } from '@bundoc/shared/contract/keys';
import { encodeSettled } from '@bundoc/shared/contract/log-folder';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { KeyVerification } from '../src/audit/verify-keys.ts';
import { verifyChain } from '../src/records/chain.ts';
import type { Inventory } from '../src/recovery/inventory.ts';
import { withDatabase } from './support/database.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import {
  backupOf,
  inventoryOf,
  recoverFrom,
  restoreInto,
  writeCatalog,
  writeProject,
} from './support/recovery.ts';

let kms: TestKms;
let keys: KeyCalls;
/** Bundoc's data folder. */
let bundoc: string;
const folders: string[] = [];
const services: TestKms[] = [];
beforeEach(async () => {
  kms = await startKms();
  keys = await KeyCalls.of(kms);
  bundoc = mkdtempSync(join(tmpdir(), 'bunkms-bundoc-'));
});
afterEach(async () => {
  for (const one of [kms, ...services.splice(0)]) await one[Symbol.asyncDispose]();
  for (const folder of [bundoc, ...folders.splice(0)]) rmSync(folder, { recursive: true, force: true });
});

/** A new service with an empty store, as after the loss of the former one. */
async function newService(kek = kms.kek): Promise<TestKms> {
  const service = await startKms({ kek });
  services.push(service);
  return service;
}

const exported = async (calls: KeyCalls, name: string, version?: number): Promise<ExportedKey> =>
  exportedKeySchema.parse((await calls.export(name, version)).json());

/** Creates a project whose key has that many versions, all of which Bundoc uses. */
async function makeProject(project: string, versions = 1): Promise<ExportedKey[]> {
  const name = `${project}-dek`;
  await keys.create(name);
  for (let version = 2; version <= versions; version++) await keys.post(name, 'rotate');
  const all: ExportedKey[] = [];
  for (let version = 1; version <= versions; version++) all.push(await exported(keys, name, version));
  writeProject(bundoc, project, all);
  return all;
}

/** The facts of a version, wherever it is stored. */
const essenceOf = ({ key_id, version, kcv, key_material_b64 }: ExportedKey) => [
  key_id,
  version,
  kcv,
  key_material_b64,
];

async function expectWhole(at: TestKms, all: readonly ExportedKey[]): Promise<void> {
  const calls = await KeyCalls.of(at);
  for (const one of all)
    expect(essenceOf(await exported(calls, one.name, one.version))).toEqual(essenceOf(one));
  const { chainKey } = await at.secrets();
  expect(await verifyChain(chainKey, await at.records())).toMatchObject({ intact: true });
}

async function expectNoDamage(at: TestKms): Promise<void> {
  const verification = new KeyVerification();
  for (const record of await at.records()) verification.note(record);
  expect(await verification.damagedKeys(at.store, (await at.secrets()).chainKey)).toEqual([]);
}

const codeOf = async (calls: KeyCalls, name: string, version?: number) =>
  (await calls.export(name, version)).json().code;
const NAME = 'p-dek';
const ID = `(SELECT id FROM keys WHERE name = '${NAME}')`;
const withoutForeignKeys = (sql: string) => edit(kms, `PRAGMA foreign_keys = OFF; ${sql}`);

describe('a store that is completely lost', () => {
  test('is rebuilt from the project files and the KEK: keys are disabled, and unchanged once enabled', async () => {
    const [first, second] = [await makeProject('p', 3), await makeProject('q')];
    const service = await newService();
    const before = await service.store.auditHead();

    const unaccepted = [
      { project: 'p', key: NAME, outcome: 'unaccepted' },
      { project: 'q', key: 'q-dek', outcome: 'unaccepted' },
    ];
    expect(await recoverFrom(service, bundoc, { dryRun: true })).toEqual(unaccepted);
    expect(await service.store.auditHead()).toEqual(before);
    expect(await recoverFrom(service, bundoc)).toEqual(unaccepted);
    expect((await service.store.counts()).keys).toBe(0);
    const recovered = [
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [1, 2, 3] },
      { project: 'q', key: 'q-dek', outcome: 'recovered', state: 'disabled', versions: [1] },
    ];
    expect(await recoverFrom(service, bundoc, { dryRun: true, acceptResurrection: true })).toEqual(recovered);
    expect((await service.store.counts()).keys).toBe(0);
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toEqual(recovered);

    const calls = await KeyCalls.of(service);
    for (const name of [NAME, 'q-dek']) {
      expect(await codeOf(calls, name)).toBe('key_disabled');
      expect((await calls.create(name)).json()).toMatchObject({ code: 'key_exists' });
      expect((await calls.post(name, 'enable')).status).toBe(200);
    }
    await expectWhole(service, [...first, ...second]);
    await expectNoDamage(service);
    expect((await calls.post(NAME, 'rotate')).json()).toMatchObject({ version: 4 });
    const detail = keyDetailSchema.parse((await calls.read(NAME)).json());
    expect(detail).toMatchObject({
      id: first[0]?.key_id,
      exportable: true,
      created_at: '2026-01-01T00:00:00.000Z',
    });
    // Another run changes nothing.
    const after = await service.store.counts();
    expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'sound' }, { outcome: 'sound' }]);
    expect(await service.store.counts()).toEqual(after);
  });

  test('is rebuilt with records of the run, of refusals, and of each key with its state', async () => {
    await makeProject('p');
    const service = await newService();
    await recoverFrom(service, bundoc);
    await recoverFrom(service, bundoc, { acceptResurrection: true });
    const records = (await service.records()).filter(({ action }) => action.endsWith('.recover'));
    expect(
      records.map(({ action, severity, outcome, key, code }) => [action, severity, outcome, key, code]),
    ).toEqual([
      ['store.recover', 'CRITICAL', 'allowed', undefined, undefined],
      ['key.recover', 'CRITICAL', 'refused', NAME, 'resurrection_not_accepted'],
      ['store.recover', 'CRITICAL', 'allowed', undefined, undefined],
      ['key.recover', 'CRITICAL', 'allowed', NAME, undefined],
    ]);
    expect(records[2]?.detail).toMatchObject({ accepted_resurrection: true });
    expect(records[3]?.detail).toMatchObject({
      state: 'disabled',
      source: 'project-file',
      accepted_resurrection: true,
    });
  });

  describe('with an inventory', () => {
    let inventory: Inventory;
    let service: TestKms;
    beforeEach(async () => {
      for (const project of ['alive', 'held', 'ending', 'gone', 'worn', 'turned'])
        await makeProject(project, 2);
      await keys.post('held-dek', 'disable');
      await keys.delete('ending-dek');
      await keys.shred('gone-dek');
      await keys.destroyVersion('worn-dek', 1);
      await keys.patch('alive-dek', { rotate_after_days: 40 });
      inventory = await inventoryOf(kms);
      await keys.post('turned-dek', 'rotate');
      writeProject(
        bundoc,
        'turned',
        [1, 2, 3].map((version) => version).length === 3 ? await versionsOf('turned-dek', 3) : [],
      );
      await makeProject('new');
      service = await newService();
    });
    const versionsOf = async (name: string, count: number) => {
      const all: ExportedKey[] = [];
      for (let version = 1; version <= count; version++) all.push(await exported(keys, name, version));
      return all;
    };

    test('restores keys in its states, destroys those that it knows as destroyed, and holds back those that it does not cover', async () => {
      expect(await recoverFrom(service, bundoc, { inventory })).toEqual([
        { project: 'alive', key: 'alive-dek', outcome: 'recovered', state: 'enabled', versions: [1, 2] },
        {
          project: 'ending',
          key: 'ending-dek',
          outcome: 'recovered',
          state: 'pending_deletion',
          versions: [1, 2],
        },
        { project: 'gone', key: 'gone-dek', outcome: 'destroyed' },
        { project: 'held', key: 'held-dek', outcome: 'recovered', state: 'disabled', versions: [1, 2] },
        // Created or rotated after the inventory: both may have been destroyed since.
        { project: 'new', key: 'new-dek', outcome: 'unaccepted' },
        { project: 'turned', key: 'turned-dek', outcome: 'unaccepted' },
        { project: 'worn', key: 'worn-dek', outcome: 'recovered', state: 'enabled', versions: [2] },
      ]);
      const calls = await KeyCalls.of(service);
      expect((await calls.export('alive-dek')).status).toBe(200);
      expect(await codeOf(calls, 'worn-dek', 1)).toBe('key_version_destroyed');
      expect((await calls.export('worn-dek')).status).toBe(200);
      expect(await codeOf(calls, 'ending-dek')).toBe('key_pending_deletion');
      expect(await codeOf(calls, 'gone-dek')).toBe('key_not_found');
      expect(keyDetailSchema.parse((await calls.read('alive-dek')).json())).toMatchObject({
        rotate_after_days: 40,
        next_rotation_at: expect.any(String),
      });
      await expectNoDamage(service);

      expect(await recoverFrom(service, bundoc, { inventory, acceptResurrection: true })).toMatchObject([
        { outcome: 'sound' },
        { outcome: 'sound' },
        { outcome: 'destroyed' },
        { outcome: 'sound' },
        { project: 'new', outcome: 'recovered', state: 'disabled' },
        { project: 'turned', outcome: 'recovered', state: 'disabled', versions: [1, 2, 3] },
        { outcome: 'sound' },
      ]);
      expect(await codeOf(calls, 'alive-dek')).toBeUndefined();
    });

    test('does not resurrect keys that are destroyed in it, whatever is accepted', async () => {
      const outcomes = await recoverFrom(service, bundoc, { inventory, acceptResurrection: true });
      expect(outcomes.find(({ project }) => project === 'gone')).toMatchObject({ outcome: 'destroyed' });
      expect(await service.store.findKey('gone-dek', 'current')).toBeUndefined();
      const refused = (await service.records()).filter(({ outcome }) => outcome === 'refused');
      expect(refused).toMatchObject([
        { action: 'key.recover', key: 'gone-dek', code: 'key_destroyed', severity: 'CRITICAL' },
      ]);
    });
  });

  test('needs the KEKs of the wrapped keys, and rewraps the keys with the current one', async () => {
    const all = await makeProject('p', 2);
    const ring = `${newKek()}\n${kms.kek}`;
    const without = await newService(newKek());
    expect(await recoverFrom(without, bundoc, { acceptResurrection: true })).toEqual([
      {
        project: 'p',
        key: NAME,
        outcome: 'unreadable',
        problem: expect.stringMatching(
          /^version 1 of the project needs the KEK [0-9a-f]{16}, which the ring lacks$/,
        ),
      },
    ]);
    expect((await without.store.counts()).keys).toBe(0);
    const service = await newService(ring);
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'recovered' },
    ]);
    await (await KeyCalls.of(service)).post(NAME, 'enable');
    await expectWhole(service, all);
    const former = Buffer.from(all[0]!.wrapped_b64, 'base64').subarray(1, 9).toString('hex');
    const { current } = (await service.secrets()).keks;
    expect(current).not.toBe(former);
    expect(await service.store.kekUses()).toEqual([{ kekId: current, versions: 2, secrets: 2 }]);
    // Copies under both KEKs may exist.
    expect((await service.store.findKey(NAME, 'current'))?.record?.kekIds).toEqual([former, current]);
  });
});

describe('a project file', () => {
  test('whose copy alone is intact is read from the copy, and the versions of both are combined', async () => {
    const all = await makeProject('p', 2);
    const directory = writeProject(bundoc, 'p', all);
    const service = await newService();
    writeFileSync(join(directory, 'project.json'), '{');
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true, dryRun: true })).toMatchObject([
      { outcome: 'recovered', versions: [1, 2] },
    ]);
    // After a crash the file is older than its copy, and the copy has a damaged version.
    writeProject(bundoc, 'p', all, (file) => ({
      ...file,
      versions: file.versions.map((one) => (one.version === 1 ? { ...one, wrapped: 'AAAA' } : one)),
    }));
    const copy = readFileSync(join(directory, 'project.json'), 'utf8');
    writeProject(bundoc, 'p', all.slice(0, 1));
    writeCatalog(directory, copy);
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'recovered', versions: [1, 2] },
    ]);
    await (await KeyCalls.of(service)).post(NAME, 'enable');
    await expectWhole(service, all);
  });

  test.each<
    [
      string,
      (file: {
        project: string;
        key: object;
        versions: { version: number; kcv: string; wrapped: string }[];
      }) => object,
      string,
    ]
  >([
    [
      'of another key id',
      (file) => ({ ...file, key: { ...file.key, id: '00000000-0000-4000-8000-000000000000' } }),
      'unreadable',
    ],
    ['of another name', (file) => ({ ...file, key: { ...file.key, name: 'q-dek' } }), 'unreadable'],
    ['of another project', (file) => ({ ...file, project: 'q' }), 'unreadable'],
    [
      'whose versions are swapped',
      (file) => ({ ...file, versions: file.versions.map((one) => ({ ...one, version: 3 - one.version })) }),
      'unreadable',
    ],
    [
      'whose check values are others',
      (file) => ({ ...file, versions: file.versions.map((one) => ({ ...one, kcv: '0'.repeat(32) })) }),
      'unreadable',
    ],
    [
      'whose newest version does not open',
      (file) => ({
        ...file,
        versions: file.versions.map((one) => (one.version === 2 ? { ...one, wrapped: 'AAAA' } : one)),
      }),
      'unreadable',
    ],
    [
      'that claims a version which does not open',
      (file) => ({ ...file, versions: [...file.versions, { version: 999, kcv: '', wrapped: 'AAAA' }] }),
      'unreadable',
    ],
    ['that is no JSON object', () => [], 'unreadable'],
  ])('%s gives no key', async (_what, change, outcome) => {
    const all = await makeProject('p', 2);
    writeProject(bundoc, 'p', all, change as never);
    const service = await newService();
    const [found] = await recoverFrom(service, bundoc, { acceptResurrection: true });
    expect(found).toMatchObject({ project: 'p', outcome, problem: expect.any(String) });
    expect((await service.store.counts()).keys).toBe(0);
  });

  test('with an older version that does not open gives the others', async () => {
    const all = await makeProject('p', 3);
    writeProject(bundoc, 'p', all, (file) => ({
      ...file,
      versions: file.versions.map((one) => (one.version === 2 ? { ...one, wrapped: 'AAAA' } : one)),
    }));
    const service = await newService();
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'recovered', versions: [1, 3], lost_versions: [2] },
    ]);
    const calls = await KeyCalls.of(service);
    await calls.post(NAME, 'enable');
    await expectWhole(service, [all[0]!, all[2]!]);
    expect(await codeOf(calls, NAME, 2)).toBe('key_damaged');
    // Once it is available, it is restored.
    writeProject(bundoc, 'p', all);
    expect(await recoverFrom(service, bundoc)).toMatchObject([
      { outcome: 'recovered', state: 'enabled', versions: [2] },
    ]);
    await expectWhole(service, all);
  });

  test('is recovered whatever deletion marker somebody has put beside it', async () => {
    const mark = { deleted: 'p', format: 1, since: '2026-01-01T00:00:00.000Z' };
    const destroyed = { ...mark, keyDestroyedAt: '2026-01-02T00:00:00.000Z' };
    const path = join(bundoc, 'projects', 'p', 'deleted.json');
    for (const content of ['', '{', mark, destroyed, { ...destroyed, finishedAt: mark.since }]) {
      await makeProject('p');
      writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
      const service = await newService();
      expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'unaccepted' }]);
      expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toMatchObject([
        { project: 'p', outcome: 'recovered', state: 'disabled' },
      ]);
      expect((await service.store.findKey(NAME, 'current'))?.record).toMatchObject({ holder: 'unknown' });
    }
  });

  test('is not expected in a folder with only a deletion marker, and a conflict is reported when the key exists', async () => {
    const folder = await makeProject('p').then(() => join(bundoc, 'projects', 'p'));
    const keyDestroyedAt = '2026-01-02T00:00:00.000Z';
    const mark = { deleted: 'p', format: 1, since: '2026-01-01T00:00:00.000Z', keyDestroyedAt };
    const service = await newService();
    await recoverFrom(service, bundoc, { acceptResurrection: true });
    for (const name of ['project.json', 'catalog']) rmSync(join(folder, name));
    writeFileSync(join(folder, 'deleted.json'), JSON.stringify(mark));
    expect(await recoverFrom(service, bundoc)).toEqual([
      {
        project: 'p',
        key: NAME,
        outcome: 'deleted',
        problem: `deleted.json says that the key was destroyed at ${keyDestroyedAt}, but the key exists`,
      },
    ]);
    await (await KeyCalls.of(service)).shred(NAME);
    expect(await recoverFrom(service, bundoc)).toEqual([{ project: 'p', key: NAME, outcome: 'deleted' }]);
  });

  test('is read only from regular files: no links, no pipes, no folders that are not projects', async () => {
    const all = await makeProject('p');
    const projects = join(bundoc, 'projects');
    mkdirSync(join(projects, 'linked'));
    for (const name of ['project.json', 'catalog'])
      symlinkSync(join(projects, 'p', name), join(projects, 'linked', name));
    symlinkSync(join(projects, 'p'), join(projects, 'linked-folder'));
    mkdirSync(join(projects, 'huge'));
    writeFileSync(join(projects, 'huge/project.json'), '');
    truncateSync(join(projects, 'huge/project.json'), 10 * 1_073_741_824);
    mkdirSync(join(projects, 'piped'));
    for (const name of ['deleted.json', 'project.json'])
      execFileSync('mkfifo', [join(projects, 'piped', name)]);
    mkdirSync(join(projects, 'Not-A-Project'));
    mkdirSync(join(projects, 'empty'));
    mkdirSync(join(projects, 'folder', 'project.json'), { recursive: true });
    const service = await newService();
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toEqual([
      {
        project: 'empty',
        outcome: 'unreadable',
        problem: 'project.json is missing, the copy in catalog is missing',
      },
      {
        project: 'folder',
        outcome: 'unreadable',
        problem: expect.stringMatching(/^project.json is a folder where a file belongs/),
      },
      {
        project: 'huge',
        outcome: 'unreadable',
        problem: expect.stringMatching(/^project.json has 10737418240 bytes/),
      },
      {
        project: 'linked',
        outcome: 'unreadable',
        problem: 'project.json is a symbolic link, the copy in catalog is a symbolic link',
      },
      {
        project: 'linked-folder',
        outcome: 'unreadable',
        problem:
          'project.json is not a folder, or its parent is not, the copy in catalog is not a folder, or its parent is not',
      },
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [1] },
      {
        project: 'piped',
        outcome: 'unreadable',
        problem: 'project.json is not a regular file, the copy in catalog is missing',
      },
    ]);
    expect(all).toHaveLength(1);
    await expect(recoverFrom(service, join(bundoc, 'projects'))).rejects.toMatchObject({
      name: 'NoDataFolder',
    });
  });

  test('is not read while the log may have projects without a folder, and nothing changes', async () => {
    await makeProject('p');
    const service = await newService();
    const before = await service.records();
    const refused = { name: 'DataFolderUnsettled', message: expect.stringContaining('run `bundoc settle`') };
    const log = join(bundoc, 'log');
    mkdirSync(log);
    writeFileSync(join(log, '00000000'), segmentHeader(1));
    for (const dryRun of [false, true])
      await expect(recoverFrom(service, bundoc, { dryRun })).rejects.toMatchObject(refused);
    writeFileSync(join(log, 'settled'), encodeSettled({ number: 1, id: SEGMENT_ID }));
    // A newer segment makes the marker stale.
    writeFileSync(join(log, '00000001'), segmentHeader(2));
    await expect(recoverFrom(service, bundoc)).rejects.toMatchObject(refused);
    // An unreadable log may contain anything.
    rmSync(join(log, '00000001'));
    symlinkSync(join(log, '00000000'), join(log, '00000001'));
    await expect(recoverFrom(service, bundoc)).rejects.toMatchObject(refused);
    expect(await service.records()).toEqual(before);
    rmSync(join(log, '00000001'));
    expect(await recoverFrom(service, bundoc, { acceptResurrection: true })).toMatchObject([
      { project: 'p', outcome: 'recovered' },
    ]);
  });
});

const SEGMENT_ID = Buffer.alloc(16, 7);

/** The first block of a segment, as `docs/formats/log.md` has it. */
function segmentHeader(number: number): Buffer {
  const block = Buffer.alloc(4_096);
  block.write('BUNDOCL1', 'latin1');
  block.writeBigUInt64BE(BigInt(number), 24);
  SEGMENT_ID.copy(block, 32);
  hash('sha256', block.subarray(0, 132), 'buffer').copy(block, 132, 0, 16);
  return block;
}

describe('a key in a store', () => {
  let all: ExportedKey[];
  beforeEach(async () => {
    all = await makeProject('p', 3);
  });

  test('that is sound is not changed', async () => {
    const before = await kms.store.findKey(NAME, 'all');
    expect(await recoverFrom(kms, bundoc, { acceptResurrection: true })).toEqual([
      { project: 'p', key: NAME, outcome: 'sound' },
    ]);
    expect(await kms.store.findKey(NAME, 'all')).toMatchObject({
      record: before?.record,
      versions: before?.versions,
    });
  });

  test.each([
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

  test.each(['disable', 'delete'] as const)(
    'that is withdrawn by %s is repaired and stays withdrawn',
    async (how) => {
      if (how === 'disable') await keys.post(NAME, 'disable');
      else await keys.delete(NAME);
      withoutForeignKeys(`DELETE FROM keys WHERE name = '${NAME}'`);
      const state = how === 'disable' ? 'disabled' : 'pending_deletion';
      expect(await recoverFrom(kms, bundoc, { acceptResurrection: true })).toMatchObject([
        { outcome: 'recovered', state },
      ]);
      expect(keyDetailSchema.parse((await keys.read(NAME)).json())).toMatchObject({ state });
      await expectNoDamage(kms);
    },
  );

  test.each([
    ['as it is', ''],
    [
      'whose row is gone',
      `DELETE FROM key_versions WHERE key_id = ${ID}; DELETE FROM keys WHERE name = '${NAME}'`,
    ],
    ['whose row was edited', `UPDATE keys SET state = 'enabled', destroyed_at = NULL WHERE name = '${NAME}'`],
  ])('that was destroyed is never restored, %s', async (_what, sql) => {
    const inventory = await inventoryOf(kms);
    await keys.shred(NAME);
    withoutForeignKeys(sql);
    for (const options of [{}, { acceptResurrection: true }, { inventory }])
      expect(await recoverFrom(kms, bundoc, options)).toEqual([
        { project: 'p', key: NAME, outcome: 'destroyed' },
      ]);
    expect(await codeOf(keys, NAME)).toBeOneOf(['key_destroyed', 'key_damaged']);
  });

  test('that was destroyed is not restored from a genuine older row while the index of changes hides its destruction', async () => {
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
    const changes = `instr(detail, '"revision":') > 0`;
    const index = `CREATE INDEX audit_key_changes ON audit (key, seq) WHERE ${changes}`;
    const hide = (database: DatabaseSync) => {
      database.exec(
        `DROP INDEX audit_key_changes; ${index} AND action <> 'key.destroy'; PRAGMA writable_schema = ON`,
      );
      database.prepare(`UPDATE sqlite_schema SET sql = ? WHERE name = 'audit_key_changes'`).run(index);
    };
    withDatabase(kms.dataDir, hide, { defensive: false });
    const again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    services.push(again);
    expect((await (await KeyCalls.of(again)).export(NAME)).status).toBe(200);
    expect(await recoverFrom(again, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'destroyed' },
    ]);
  });

  test('does not get back an individually destroyed version, whatever happened to its row', async () => {
    await keys.destroyVersion(NAME, 2);
    for (const sql of [
      'SELECT 1',
      'DELETE FROM key_versions WHERE version = 2',
      `UPDATE key_versions SET state = 'available', destroyed_at = NULL, wrapped = zeroblob(69) WHERE version = 2`,
      `DELETE FROM keys WHERE name = '${NAME}'`,
    ]) {
      withoutForeignKeys(sql);
      await recoverFrom(kms, bundoc, { acceptResurrection: true });
      expect(await codeOf(keys, NAME, 2), sql).toBeOneOf(['key_version_destroyed', 'key_damaged']);
      for (const version of [1, 3]) expect((await keys.export(NAME, version)).status, sql).toBe(200);
    }
    await expectNoDamage(kms);
    expect(await codeOf(keys, NAME, 2)).toBe('key_version_destroyed');
  });

  test('that is a different one with the same name is not touched', async () => {
    const other = await newService();
    const calls = await KeyCalls.of(other);
    await calls.create(NAME);
    const before = await other.store.findKey(NAME, 'all');
    expect(await recoverFrom(other, bundoc, { acceptResurrection: true })).toEqual([
      { project: 'p', key: NAME, outcome: 'conflict', problem: 'another key has that name' },
    ]);
    expect(await other.store.findKey(NAME, 'all')).toMatchObject({ record: before?.record });
  });

  test('is not repaired from a broken chain', async () => {
    await kms.records();
    edit(
      kms,
      `PRAGMA foreign_keys = OFF; DELETE FROM keys WHERE name = '${NAME}'; DELETE FROM audit WHERE seq = 3`,
    );
    await expect(recoverFrom(kms, bundoc, { acceptResurrection: true })).rejects.toMatchObject({
      name: 'ChainBroken',
      message: expect.stringMatching(/record 3 is missing/),
    });
  });
});

test('that somebody inserted into the store without records is not restored unless that is accepted', async () => {
  const [first] = await makeProject('p');
  const { record, versions } = (await kms.store.findKey(NAME, 'all')) ?? {};
  await keys.shred(NAME);
  const service = await newService();
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
    writeProject(bundoc, 'p', [{ ...first!, version }]);
    expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'unaccepted' }]);
  }
});

describe('a store that was restored from before a rotation', () => {
  let all: ExportedKey[];
  let restored: TestKms;
  const restoreWith = async (inventory?: Inventory) => {
    const { archive } = backup;
    const dataDir = join(newDataDir(), 'kms');
    folders.push(join(dataDir, '..'));
    await restoreInto({
      archive,
      kek: kms.kek,
      dataDir,
      ...(inventory === undefined ? { acceptResurrection: true } : { inventory }),
    });
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

  test('with an inventory gets the newer versions from the project, and works at once', async () => {
    const calls = await restoreWith(await inventoryOf(kms));
    expect(await codeOf(calls, NAME)).toBe('key_damaged');
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'enabled', versions: [2, 3] },
    ]);
    await expectWhole(restored, all);
    await expectNoDamage(restored);
    expect((await calls.post(NAME, 'rotate')).json()).toMatchObject({ version: 4 });
  });

  test('without an inventory gets them only if that is accepted, and stays disabled', async () => {
    const calls = await restoreWith();
    expect(await recoverFrom(restored, bundoc)).toMatchObject([{ outcome: 'unaccepted' }]);
    expect(await recoverFrom(restored, bundoc, { acceptResurrection: true })).toEqual([
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [2, 3] },
    ]);
    expect((await calls.post(NAME, 'enable')).status).toBe(200);
    await expectWhole(restored, all);
    await expectNoDamage(restored);
  });

  test('and has been rotated differently since keeps its versions, and reports a conflict', async () => {
    const calls = await restoreWith();
    await calls.post(NAME, 'enable');
    await calls.post(NAME, 'rotate');
    const made = await exported(calls, NAME, 2);
    expect(await recoverFrom(restored, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'conflict', problem: 'version 2 of the project is another key than version 2 in the store' },
    ]);
    expect(essenceOf(await exported(calls, NAME, 2))).toEqual(essenceOf(made));
    withoutRow(restored);
    expect(await recoverFrom(restored, bundoc, { acceptResurrection: true })).toMatchObject([
      { outcome: 'conflict' },
    ]);
  });
  test('accepts no other genuine version from a row that somebody inserted than the one that was created there', async () => {
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

  test('keeps the number of a version that is lost everywhere', async () => {
    const calls = await restoreWith(await inventoryOf(kms));
    writeProject(bundoc, 'p', all.slice(0, 1));
    expect(await recoverFrom(restored, bundoc)).toEqual([
      { project: 'p', key: NAME, outcome: 'sound', lost_versions: [2, 3] },
    ]);
    expect((await calls.post(NAME, 'rotate')).json()).toMatchObject({ code: 'key_damaged' });
  });
});

describe('a recovery', () => {
  test('that fails at any write can be run again, and ends with every key restored', async () => {
    const all: ExportedKey[] = [];
    for (const project of ['p', 'q', 'r']) all.push(...(await makeProject(project, 2)));
    let failAt = 1;
    for (; ; failAt++) {
      const faulty = new FaultyStore();
      const service = await newService();
      const store = faulty.decorate(service.store);
      let writes = 0;
      for (const method of ['appendAudit', 'addKek', 'replaceKey', 'updateKey'] as const)
        faulty.replaced[method] = async (real, ...args) => {
          const isLast = ++writes === failAt;
          // Half of the time the write happens, and its answer is lost.
          if (!isLast || failAt % 2 === 0) await real(...args);
          if (isLast) throw new Error('injected');
          return true;
        };
      const failing = recoverFrom({ ...service, store }, bundoc, { acceptResurrection: true });
      const outcome = await failing.then(
        () => 'done',
        (error: Error) => error.message,
      );
      const again = await recoverFrom(service, bundoc, { acceptResurrection: true });
      expect(again.every(({ outcome: one }) => one === 'recovered' || one === 'sound')).toBe(true);
      const calls = await KeyCalls.of(service);
      for (const project of ['p', 'q', 'r']) await calls.post(`${project}-dek`, 'enable');
      await expectWhole(service, all);
      await expectNoDamage(service);
      if (outcome === 'done') break;
      expect(outcome).toBe('injected');
    }
    expect(failAt).toBeGreaterThan(4);
  });

  test('does not overwrite concurrent changes of a key', async () => {
    await makeProject('p', 2);
    withoutForeignKeys(`DELETE FROM key_versions WHERE version = 1`);
    const faulty = new FaultyStore();
    let isRaced = false;
    faulty.replaced.updateKey = async (real, ...args) => {
      if (!isRaced) {
        isRaced = true;
        await keys.post(NAME, 'disable');
      }
      return real(...args);
    };
    const store = faulty.decorate(kms.store);
    expect(await recoverFrom({ ...kms, store }, bundoc)).toMatchObject([
      { outcome: 'recovered', state: 'disabled', versions: [1] },
    ]);
    expect(isRaced).toBe(true);
    expect(await codeOf(keys, NAME)).toBe('key_disabled');
    await expectNoDamage(kms);
  });

  test('that runs many times at once beside the service recovers each key once', async () => {
    const all = await makeProject('p', 3);
    withoutForeignKeys(`DELETE FROM keys WHERE name = '${NAME}'`);
    const runs = await Promise.all(Array.from({ length: 5 }, () => recoverFrom(kms, bundoc)));
    const outcomes = runs.flat().map(({ outcome }) => outcome);
    expect(outcomes.filter((outcome) => outcome === 'recovered')).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === 'sound')).toHaveLength(4);
    await expectWhole(kms, all);
    await expectNoDamage(kms);
  });

  test('changes nothing in the folder that it reads', async () => {
    await makeProject('p', 2);
    const filesOf = () =>
      readdirSync(join(bundoc, 'projects', 'p')).map((name) => [
        name,
        readFileSync(join(bundoc, 'projects', 'p', name), 'utf8'),
      ]);
    const before = filesOf();
    await recoverFrom(await newService(), bundoc, { acceptResurrection: true });
    expect(filesOf()).toEqual(before);
  });
});
