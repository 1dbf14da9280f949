import { type ExportedKey, keyDetailSchema } from '@bundoc/shared/contract/keys';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Inventory } from '../src/recovery/inventory.ts';
import { newKek, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  expectNoDamage,
  expectWhole,
  exported,
  keys,
  kms,
  makeProject,
  NAME,
  newService,
  useRecovery,
} from './support/recovered-stores.ts';
import { inventoryOf, recoverFrom, writeProject } from './support/recovery.ts';

useRecovery();

describe('a store that is completely lost', () => {
  it('is rebuilt from the project files and the KEK: keys are disabled, and unchanged once enabled', async () => {
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

  it('is rebuilt with records of the run, of refusals, and of each key with its state', async () => {
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

  it('needs the KEKs of the wrapped keys, and rewraps the keys with the current one', async () => {
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

describe('the recovery of a lost store with an inventory', () => {
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

  it('restores keys in the states of the inventory, omits destroyed ones, and holds back keys that the inventory does not cover', async () => {
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

  it('restores no key that the inventory knows as destroyed, whatever is accepted', async () => {
    const outcomes = await recoverFrom(service, bundoc, { inventory, acceptResurrection: true });
    expect(outcomes.find(({ project }) => project === 'gone')).toMatchObject({ outcome: 'destroyed' });
    expect(await service.store.findKey('gone-dek', 'current')).toBeUndefined();
    const refused = (await service.records()).filter(({ outcome }) => outcome === 'refused');
    expect(refused).toMatchObject([
      { action: 'key.recover', key: 'gone-dek', code: 'key_destroyed', severity: 'CRITICAL' },
    ]);
  });
});
