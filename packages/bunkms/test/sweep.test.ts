import { AppError } from '@bundoc/shared/contract/app-error';
import { KEY_VERSIONS_MAX } from '@bundoc/shared/contract/keys';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AuditLog } from '../src/audit/log.ts';
import type { KeyDeps } from '../src/keys/stored-key.ts';
import { KeySweep } from '../src/keys/sweep-keys.ts';
import { createMetrics } from '../src/metrics.ts';
import { NO_OUTSIDE_KEYS } from '../src/outside/port.ts';
import { keyChangeDraft } from '../src/records/key-record.ts';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { Vault } from '../src/vault/vault.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { infoIn, KeyCalls } from './support/lifecycle.ts';
import { testStorage } from './support/storage.ts';

const DAY_MS = 86_400_000;
const NAME = 'a-dek';

let clock: FakeClock;
let faulty: FaultyStore;
let kms: TestKms;
let keys: KeyCalls;
beforeEach(async () => {
  // The service sweeps at its start, but not again during a test.
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  clock = new FakeClock();
  faulty = new FaultyStore();
  kms = await startKms({ clock });
  keys = await KeyCalls.of(kms);
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  vi.useRealTimers();
});

/** The sweep of a new process. */
async function newSweep(at = kms): Promise<KeySweep> {
  const logger = createLogger({ service: 'bunkms', level: 'silent' });
  const store = faulty.decorate(at.store);
  const state = await at.secrets();
  const deps: KeyDeps = {
    store,
    vault: new Vault(parseKekRing('test', at.kek)),
    keks: { refresh: async () => state.keks },
    chainKey: state.chainKey,
    audit: new AuditLog({ store, logger, metrics: createMetrics() }),
    clock,
    logger,
    outside: NO_OUTSIDE_KEYS,
  };
  return new KeySweep(deps);
}

/** A new token, because tokens expire when the clock advances. */
const fresh = () => KeyCalls.of(kms);
const stateOf = async (name = NAME) => (await kms.store.findKey(name, 'current'))?.record?.state;
const versionOf = async (name = NAME) => (await kms.store.findKey(name, 'current'))?.record?.version;
const actionsOf = async (action: string) =>
  (await kms.records()).filter((record) => record.action === action);
const isStored = (bytes: Buffer) => testStorage().holds(kms.dataDir, bytes);

describe('a deletion that is due', () => {
  it('is carried out by the service at its time and not before, recorded as the system', async () => {
    await keys.make(NAME, 'enabled');
    const wrapped = Buffer.from((await keys.export(NAME)).json().wrapped_b64, 'base64');
    await keys.delete(NAME);
    const sweep = await newSweep();
    clock.advance(7 * DAY_MS - 1);
    await sweep.run();
    expect(await stateOf()).toBe('pending_deletion');
    expect(await isStored(wrapped)).toBe(true);
    clock.advance(1);
    await sweep.run();
    await sweep.run();
    expect(await stateOf()).toBe('destroyed');
    expect(await isStored(wrapped)).toBe(false);
    const [record, ...more] = await actionsOf('key.destroy');
    expect(record).toMatchObject({
      actor: 'system',
      key: NAME,
      detail: { kek_ids: new Vault(parseKekRing('test', kms.kek)).currentKekId },
    });
    expect(more).toEqual([]);
    expect((await (await fresh()).export(NAME)).json()).toMatchObject({ code: 'key_destroyed' });
  });

  it('is not carried out for a key that is restored in time, even during the sweep', async () => {
    await keys.make(NAME, 'pending_deletion');
    await keys.make('b-dek', 'pending_deletion');
    await keys.post('b-dek', 'restore');
    const sweep = await newSweep();
    clock.advance(8 * DAY_MS);
    const late = await fresh();
    faulty.replaced.listDueKeys = async (real, ...args) => {
      const page = await real(...args);
      await late.post(NAME, 'restore');
      return page;
    };
    await sweep.run();
    expect([await stateOf(), await stateOf('b-dek')]).toEqual(['disabled', 'disabled']);
  });

  it('is done once by several concurrent processes', async () => {
    for (let number = 0; number < 20; number++) await keys.make(`k${number}`, 'pending_deletion');
    const sweeps = await Promise.all([newSweep(), newSweep(), newSweep()]);
    clock.advance(7 * DAY_MS);
    await Promise.all(sweeps.map((sweep) => sweep.run()));
    expect(await actionsOf('key.destroy')).toHaveLength(20);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('is carried out at the start of a service that was down at that time', async () => {
    await keys.make(NAME, 'pending_deletion');
    await kms.running.close();
    clock.advance(100 * DAY_MS);
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    await expect
      .poll(async () => (await again.store.findKey(NAME, 'current'))?.record?.state)
      .toBe('destroyed');
  });

  it('is not carried out early when the clock is set forward, until a restart', async () => {
    await keys.make(NAME, 'pending_deletion');
    const sweep = await newSweep();
    clock.setWall(clock.now() + 365 * DAY_MS);
    await sweep.run();
    expect(await stateOf()).toBe('pending_deletion');
    clock.advance(7 * DAY_MS);
    await sweep.run();
    expect(await stateOf()).toBe('destroyed');
  });

  it('is only delayed when the clock is set back', async () => {
    await keys.make(NAME, 'pending_deletion');
    const sweep = await newSweep();
    clock.setWall(clock.now() - 3 * DAY_MS);
    clock.advance(7 * DAY_MS);
    await sweep.run();
    expect(await stateOf()).toBe('pending_deletion');
    clock.advance(3 * DAY_MS);
    await sweep.run();
    expect(await stateOf()).toBe('destroyed');
  });

  it('skips a damaged key and continues with the others', async () => {
    for (const name of ['a-dek', 'b-dek', 'c-dek']) await keys.make(name, 'pending_deletion');
    await testStorage().edit(
      kms.dataDir,
      `UPDATE keys SET due_at = '2025-01-01T00:00:00.000Z' WHERE name = 'b-dek'`,
    );
    const sweep = await newSweep();
    await sweep.run();
    expect(await stateOf('b-dek')).toBe('pending_deletion');
    clock.advance(7 * DAY_MS);
    await sweep.run();
    expect([await stateOf('a-dek'), await stateOf('b-dek'), await stateOf('c-dek')]).toEqual([
      'destroyed',
      'pending_deletion',
      'destroyed',
    ]);
  });
});

describe('an interrupted destruction', () => {
  const down = () => Promise.reject(new AppError('storage_unavailable'));
  const CUTS: [string, () => void, boolean][] = [
    [
      'before it is written',
      () => {
        faulty.replaced.updateKey = down;
      },
      false,
    ],
    [
      'after it was written, before the answer',
      () => {
        faulty.replaced.updateKey = async (real, ...args) => {
          await real(...args);
          return down();
        };
      },
      true,
    ],
    [
      'before its bytes are erased from the files',
      () => {
        faulty.replaced.scrub = down;
      },
      true,
    ],
    [
      'while another process keeps the bytes in the files',
      () => {
        faulty.replaced.scrub = async () => false;
      },
      true,
    ],
    [
      'after its bytes were erased',
      () => {
        faulty.replaced.scrub = async (real) => {
          await real();
          return down();
        };
      },
      true,
    ],
  ];

  it.each(CUTS)(
    '%s leaves the key intact or destroyed, and the next sweep finishes it',
    async (_when, cut, isWritten) => {
      await keys.make(NAME, 'enabled');
      const wrapped = Buffer.from((await keys.export(NAME)).json().wrapped_b64, 'base64');
      await keys.delete(NAME);
      clock.advance(7 * DAY_MS);
      cut();
      await (await newSweep()).run();
      expect(await stateOf()).toBe(isWritten ? 'destroyed' : 'pending_deletion');
      if (!isWritten) expect(await isStored(wrapped)).toBe(true);
      faulty.replaced.updateKey = (real, ...args) => real(...args);
      delete faulty.replaced.scrub;
      await (await newSweep()).run();
      expect(await stateOf()).toBe('destroyed');
      expect(await isStored(wrapped)).toBe(false);
      expect(await actionsOf('key.destroy')).toHaveLength(1);
      expect(await kms.verify()).toMatchObject({ intact: true });
    },
  );

  it.each(CUTS)(
    'an interrupted destruction by a caller, %s, can be repeated, and happens at most once',
    async (_when, cut, isWritten) => {
      await using other = await startKms({
        dataDir: kms.dataDir,
        kek: kms.kek,
        clock,
        decorate: faulty.decorate,
      });
      const calls = await KeyCalls.of(other);
      await calls.make(NAME, 'enabled');
      const wrapped = Buffer.from((await calls.export(NAME)).json().wrapped_b64, 'base64');
      cut();
      const first = await calls.shred(NAME);
      delete faulty.replaced.updateKey;
      delete faulty.replaced.scrub;
      const second = await calls.shred(NAME);
      if (first.status === 200) expect(second.json()).toMatchObject({ code: 'key_destroyed' });
      else expect([first.status, second.status]).toEqual([503, isWritten ? 410 : 200]);
      await (await newSweep()).run();
      expect(await isStored(wrapped)).toBe(false);
      expect(await actionsOf('key.destroy')).toHaveLength(1);
    },
  );
});

describe('a rotation policy', () => {
  it('creates a version when the current one has that age, recorded as the system', async () => {
    const made = infoIn(await keys.create(NAME, { rotate_after_days: 30 }));
    expect(made.next_rotation_at).toBe(new Date(clock.now() + 30 * DAY_MS).toISOString());
    const sweep = await newSweep();
    clock.advance(30 * DAY_MS - 1);
    await sweep.run();
    expect(await versionOf()).toBe(1);
    clock.advance(1);
    await sweep.run();
    await sweep.run();
    expect(await versionOf()).toBe(2);
    expect(await actionsOf('key.rotate')).toMatchObject([{ actor: 'system', key: NAME, version: 2 }]);
    const late = await fresh();
    expect((await late.read(NAME)).json()).toMatchObject({
      next_rotation_at: new Date(clock.now() + 30 * DAY_MS).toISOString(),
    });
    for (const version of [1, 2]) expect((await late.export(NAME, version)).status).toBe(200);
  });

  it('counts from the last rotation by anyone, and makes up for missed time with one rotation', async () => {
    await keys.create(NAME, { rotate_after_days: 30 });
    const sweep = await newSweep();
    clock.advance(20 * DAY_MS);
    await (await fresh()).post(NAME, 'rotate');
    clock.advance(29 * DAY_MS);
    await sweep.run();
    expect(await versionOf()).toBe(2);
    clock.advance(200 * DAY_MS);
    await sweep.run();
    await sweep.run();
    expect(await versionOf()).toBe(3);
  });

  it('a rotation policy that is set later counts from the current version, and its removal ends it', async () => {
    await keys.create(NAME);
    clock.advance(40 * DAY_MS);
    const sweep = await newSweep();
    await (await fresh()).patch(NAME, { rotate_after_days: 30 });
    await sweep.run();
    expect(await versionOf()).toBe(2);
    const off = infoIn(await (await fresh()).patch(NAME, { rotate_after_days: null }));
    expect(off).toMatchObject({ rotate_after_days: null });
    expect(off).not.toHaveProperty('next_rotation_at');
    clock.advance(400 * DAY_MS);
    await sweep.run();
    expect(await versionOf()).toBe(2);
  });

  it('pauses while the key is disabled or pending deletion, and resumes when it is enabled', async () => {
    await keys.create(NAME, { rotate_after_days: 5 });
    await keys.post(NAME, 'disable');
    const sweep = await newSweep();
    clock.advance(6 * DAY_MS);
    await sweep.run();
    expect(await versionOf()).toBe(1);
    infoIn(await (await fresh()).post(NAME, 'enable'));
    await sweep.run();
    expect(await versionOf()).toBe(2);
    await (await fresh()).delete(NAME, '?pending_days=30');
    clock.advance(6 * DAY_MS);
    await sweep.run();
    expect([await versionOf(), await stateOf()]).toEqual([2, 'pending_deletion']);
  });

  it('is done once by several concurrent processes', async () => {
    for (let number = 0; number < 10; number++) await keys.create(`k${number}`, { rotate_after_days: 1 });
    const sweeps = await Promise.all([newSweep(), newSweep(), newSweep()]);
    clock.advance(DAY_MS);
    await Promise.all(sweeps.map((sweep) => sweep.run()));
    expect(await actionsOf('key.rotate')).toHaveLength(10);
  });

  it('stops at the maximum number of versions', async () => {
    await keys.create(NAME, { rotate_after_days: 1 });
    const record = (await kms.store.findKey(NAME, 'current'))?.record;
    if (record === undefined) throw new Error('no key');
    const last = { ...record, version: KEY_VERSIONS_MAX, revision: 2 };
    const audit = keyChangeDraft({ caller: {}, time: record.createdAt, action: 'key.rotate' }, last);
    await kms.store.updateKey({ record: last, versions: [], audit, previous: record });
    clock.advance(2 * DAY_MS);
    await (await newSweep()).run();
    expect(await versionOf()).toBe(KEY_VERSIONS_MAX);
  });
});

describe('the sweep', () => {
  it('processes more keys than fit into one page', async () => {
    await Promise.all(
      Array.from({ length: 205 }, (_, number) => keys.create(`k${number}`, { rotate_after_days: 1 })),
    );
    const sweep = await newSweep();
    clock.advance(DAY_MS);
    await sweep.run();
    expect(await actionsOf('key.rotate')).toHaveLength(205);
  });

  it('survives a failing store, and does the rest next time', async () => {
    await keys.make(NAME, 'pending_deletion');
    const sweep = await newSweep();
    clock.advance(7 * DAY_MS);
    faulty.replaced.listDueKeys = () => Promise.reject(new AppError('storage_unavailable'));
    await sweep.run();
    expect(await stateOf()).toBe('pending_deletion');
    delete faulty.replaced.listDueKeys;
    await Promise.all([sweep.run(), sweep.run(), sweep.settled()]);
    expect(await stateOf()).toBe('destroyed');
  });
});
