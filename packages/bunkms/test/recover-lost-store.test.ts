import { keyDetailSchema } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { newKek } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  expectNoDamage,
  expectWhole,
  kms,
  makeProject,
  NAME,
  newService,
  useRecovery,
} from './support/recovered-stores.ts';
import { recoverFrom } from './support/recovery.ts';

useRecovery();

describe('a store that is completely lost', () => {
  it('is rebuilt from the project files and the KEK: keys are disabled, and unchanged once enabled', async () => {
    const [first, second] = [await makeProject('p', 3), await makeProject('q')];
    const service = await newService();
    const recovered = [
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [1, 2, 3] },
      { project: 'q', key: 'q-dek', outcome: 'recovered', state: 'disabled', versions: [1] },
    ];
    expect(await recoverFrom(service, bundoc, { dryRun: true })).toEqual(recovered);
    expect((await service.store.counts()).keys).toBe(0);
    expect(await recoverFrom(service, bundoc)).toEqual(recovered);

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

  it('is rebuilt with records of the run, and of each key with its state', async () => {
    await makeProject('p');
    const service = await newService();
    await recoverFrom(service, bundoc);
    const records = (await service.records()).filter(({ action }) => action.endsWith('.recover'));
    expect(
      records.map(({ action, severity, outcome, key, code }) => [action, severity, outcome, key, code]),
    ).toEqual([
      ['store.recover', 'CRITICAL', 'allowed', undefined, undefined],
      ['key.recover', 'CRITICAL', 'allowed', NAME, undefined],
    ]);
    expect(records[1]?.detail).toMatchObject({
      state: 'disabled',
      source: 'project-file',
      later_state: 'unknown',
    });
  });

  it('needs the KEKs of the wrapped keys, and rewraps the keys with the current one', async () => {
    const all = await makeProject('p', 2);
    const ring = `${newKek()}\n${kms.kek}`;
    const without = await newService(newKek());
    expect(await recoverFrom(without, bundoc)).toEqual([
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
    expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'recovered' }]);
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
