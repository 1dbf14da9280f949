import { randomBytes, randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { type KeyDetail, keyDetailSchema } from '@bundoc/shared/contract/keys';
import type { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { VersionProtection } from '../src/keys/protect-versions.ts';
import { KeySweep } from '../src/keys/sweep-keys.ts';
import { OutsideKeys } from '../src/outside/outside-keys.ts';
import { SYSTEM } from '../src/records/caller.ts';
import { bunkms } from './support/command.ts';
import { Customer } from './support/customer.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { type BareKms, openUnsealed } from './support/keks.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';

const NAME = 'a-dek';
let customer: Customer;
let kms: TestKms;
let calls: KeyCalls;
let token: string;

beforeEach(async () => {
  customer = await Customer.start();
  // The longest wait after a failure.
  vi.spyOn(Math, 'random').mockReturnValue(1);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await kms[Symbol.asyncDispose]();
  await customer[Symbol.asyncDispose]();
});

async function begin(protectEveryMs?: number): Promise<void> {
  kms = await startKms({
    config: { outsideKeysFile: customer.file },
    ...(protectEveryMs === undefined ? {} : { protectEveryMs }),
  });
  calls = await KeyCalls.of(kms);
  token = await kms.fullToken();
}

const attach = (name = NAME, key = 'acme') =>
  kms.api(`/v1/keys/${name}/outside`, { token, method: 'PUT', body: { key } });
const detach = () => kms.api(`/v1/keys/${NAME}/outside`, { token, method: 'DELETE' });
const read = async (name = NAME): Promise<KeyDetail> =>
  keyDetailSchema.parse((await calls.read(name)).json());
/** What each version needs besides the KEK. */
const needsOf = async (name = NAME) => (await read(name)).versions.map(({ outside }) => outside ?? 'none');
const rewraps = async () => (await kms.records()).filter(({ action }) => action === 'key.rewrap');

/** A key of that many versions. */
async function make(versions: number, name = NAME): Promise<void> {
  await calls.create(name);
  for (let version = 2; version <= versions; version++) await calls.post(name, 'rotate');
}

interface Node extends AsyncDisposable {
  readonly clock: FakeClock;
  readonly protection: VersionProtection;
}

/** Another process over the same store. */
async function node(): Promise<Node> {
  const bare: BareKms = await openUnsealed({ dataDir: kms.dataDir, ring: kms.kek });
  const outside = new OutsideKeys({ file: customer.file, logger: bare.deps.logger });
  const clock = bare.deps.clock as FakeClock;
  const protection = new VersionProtection({
    ...bare.deps,
    outside,
    caller: SYSTEM,
    holder: randomUUID(),
    restMs: 0,
  });
  return {
    clock,
    protection,
    [Symbol.asyncDispose]: async () => {
      await protection.stop();
      await outside[Symbol.asyncDispose]();
      await bare[Symbol.asyncDispose]();
    },
  };
}

describe('older versions of a key', () => {
  it('are protected by the running service after an attachment, and open as before', async () => {
    await begin(50);
    await make(11);
    const before = (await calls.export(NAME, 3)).json().key_material_b64;
    await attach();
    await expect.poll(() => needsOf()).toEqual(Array(12).fill('acme'));
    expect((await calls.export(NAME, 3)).json().key_material_b64).toBe(before);
    const [first] = await rewraps();
    expect(first).toMatchObject({ actor: SYSTEM.actor, outcome: 'allowed', key: NAME });
    customer.attitude = 'denying';
    expect((await calls.export(NAME, 3)).json()).toMatchObject({ code: 'outside_key_denied' });
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('are let go after a detachment, and follow to another outside key', async () => {
    await begin();
    await make(2);
    await using one = await node();
    await one.protection.run();
    await attach();
    await one.protection.run();
    expect(await needsOf()).toEqual(Array(3).fill('acme'));
    await attach(NAME, 'other');
    await one.protection.run();
    expect(await needsOf()).toEqual(Array(4).fill('other'));
    await detach();
    await one.protection.run();
    expect(await needsOf()).toEqual(Array(5).fill('none'));
  });

  it('are found by a process that starts later, of keys of every state but destroyed ones', async () => {
    await begin();
    for (const name of ['gone-dek', 'off-dek', 'on-dek', 'single-dek']) {
      await make(1, name);
      if (name !== 'single-dek') await attach(name);
    }
    await calls.post('off-dek', 'disable');
    await calls.shred('gone-dek');
    customer.takeCalls();
    await using one = await node();
    await one.protection.run();
    expect(await needsOf('on-dek')).toEqual(['acme', 'acme']);
    expect(await needsOf('off-dek')).toEqual(['acme', 'acme']);
    expect((await rewraps()).map(({ key }) => key)).toEqual(['off-dek', 'on-dek']);
    customer.takeCalls();
    await one.protection.run();
    expect(customer.takeCalls()).toEqual([]);
  });

  it('are protected by one process at a time, and another one continues after it was interrupted', async () => {
    await begin();
    await make(20);
    await attach();
    const one = await node();
    await using two = await node();
    // The first call of the customer waits until the other process has seen the claim.
    const { promise: asked, resolve: isAsked } = Promise.withResolvers<void>();
    const { promise: opened, resolve: open } = Promise.withResolvers<void>();
    customer.service.intercept = (_request, response) => {
      isAsked();
      void opened.then(() => response.destroy());
    };
    const running = one.protection.run();
    await asked;
    await two.protection.run();
    expect(await rewraps()).toEqual([]);
    open();
    await running;
    await one[Symbol.asyncDispose]();
    customer.attitude = 'present';
    await two.protection.run();
    expect(await needsOf()).toEqual(Array(21).fill('acme'));
    expect(await rewraps()).toHaveLength(3);
  });

  it('a stop ends the work after the present version, and keeps what is done', async () => {
    await begin();
    await make(4);
    await attach();
    const one = await node();
    const { intercept } = customer.service;
    let stopped: Promise<void> | undefined;
    const { asked } = customer.service;
    asked.length = 0;
    Object.defineProperty(customer.service, 'intercept', {
      configurable: true,
      get: () => {
        // The stop comes in the calls of the second version.
        if (asked.filter((call) => call.includes('/encrypt/')).length === 2)
          stopped ??= one.protection.stop();
        return intercept;
      },
    });
    await one.protection.run();
    await stopped;
    expect(await needsOf()).toEqual(['acme', 'acme', 'none', 'none', 'acme']);
    await one[Symbol.asyncDispose]();
  });

  it.each(['denying', 'away'] as const)(
    'wait while the customer is %s: one key of his is tried, and again after a while',
    async (attitude) => {
      await begin();
      for (const name of ['a-dek', 'b-dek', 'c-dek']) {
        await make(1, name);
        await attach(name, name === 'c-dek' ? 'other' : 'acme');
      }
      const before = (await read()).revision;
      customer.attitude = attitude;
      await using one = await node();
      customer.takeCalls();
      await one.protection.run();
      const tried = customer.takeCalls().filter((path) => path.endsWith('/acme'));
      expect(tried).toHaveLength(1);
      expect((await read()).revision).toBe(before);
      await one.protection.run();
      expect(customer.takeCalls()).toEqual([]);
      // Exports of older versions go on.
      expect((await calls.export('a-dek', 1)).status).toBe(200);
      customer.attitude = 'present';
      one.clock.advance(120_001);
      await one.protection.run();
      for (const name of ['a-dek', 'b-dek', 'c-dek']) expect(await needsOf(name)).not.toContain('none');
    },
  );

  it('never wait for a key that can never be finished, because one of its outside keys is gone', async () => {
    await begin();
    await calls.create('a-dek');
    await attach('a-dek', 'acme');
    await attach('a-dek', 'other');
    for (const name of ['b-dek', 'c-dek']) {
      await calls.create(name);
      await attach(name, 'other');
    }
    customer.service.keys.delete('acme');
    await using one = await node();
    await one.protection.run();
    for (const name of ['b-dek', 'c-dek']) expect(await needsOf(name)).toEqual(['other', 'other']);
    // It has a wait of its own, and is tried again after it.
    customer.takeCalls();
    await one.protection.run();
    expect(customer.takeCalls()).toEqual([]);
    one.clock.advance(120_001);
    await one.protection.run();
    expect(customer.takeCalls().some((path) => path.endsWith('/acme'))).toBe(true);
  });

  it('of a key that has failed wait for those of all others of its outside key', async () => {
    await begin();
    for (const name of ['a-dek', 'b-dek']) {
      await make(1, name);
      await attach(name);
    }
    customer.attitude = 'denying';
    await using one = await node();
    await one.protection.run();
    customer.attitude = 'present';
    one.clock.advance(120_001);
    await one.protection.run();
    expect((await rewraps()).map(({ key }) => key)).toEqual(['b-dek', 'a-dek']);
  });
});

describe('a version that fails', () => {
  const rewrap = async () =>
    (await kms.api(`/v1/keys/${NAME}/outside/rewrap`, { token, method: 'POST' })).json();
  /** The first version of a key under none, the second under `acme`, and the third under `other`. */
  const makeMoved = async (name: string) => {
    await make(1, name);
    await attach(name, 'acme');
    await attach(name, 'other');
  };
  const partly = ['other', 'acme', 'other'];

  it('keeps no other version from a rewrap, whose answer names the failure, and what has worked stays', async () => {
    await begin();
    await makeMoved(NAME);
    customer.service.keys.delete('acme');
    expect(await rewrap()).toMatchObject({
      code: expect.stringMatching(/^outside_key_/),
      outside_key: 'acme',
    });
    expect(await needsOf()).toEqual(partly);
    const { revision } = await read();
    expect(await rewrap()).toMatchObject({ outside_key: 'acme' });
    expect((await read()).revision).toBe(revision);
    expect(await rewraps()).toHaveLength(1);
  });

  it('keeps no other version from a rewrap, however many before it are damaged', async () => {
    await begin();
    await make(1);
    await attach();
    for (let n = 0; n < 8; n++) await calls.post(NAME, 'rotate');
    await attach(NAME, 'other');
    await detach();
    customer.service.keys.set('acme', randomBytes(32));
    expect(await rewrap()).toMatchObject({ code: 'key_damaged' });
    expect(await needsOf()).toEqual(['none', ...Array(9).fill('acme'), 'none', 'none']);
  });

  it('keeps no version of any key from the work of the service that does without its outside key', async () => {
    await begin();
    for (const name of ['a-dek', 'b-dek']) await makeMoved(name);
    customer.service.keys.delete('acme');
    await using one = await node();
    customer.takeCalls();
    await one.protection.run();
    for (const name of ['a-dek', 'b-dek']) expect(await needsOf(name)).toEqual(partly);
    // The first key tells that the customer does not open; the second does not ask him.
    expect(customer.takeCalls().filter((path) => path.endsWith('/decrypt/acme'))).toHaveLength(1);
  });

  it('is tried again by the service when it was damaged, at least once in an hour', async () => {
    await begin();
    await makeMoved(NAME);
    const key = customer.service.keys.get('acme') as Buffer;
    customer.service.keys.set('acme', randomBytes(32));
    await using one = await node();
    for (let hour = 0; hour < 12; hour++) {
      await one.protection.run();
      one.clock.advance(3_600_000);
    }
    expect(await needsOf()).toEqual(partly);
    customer.service.keys.set('acme', key);
    await one.protection.run();
    expect(await needsOf()).toEqual(['other', 'other', 'other']);
  });
});

describe('the sweep of due keys, while a customer does not answer,', () => {
  it('destroys and scrubs first, asks him for one key, and rotates those of others', async () => {
    await begin();
    for (const [name, outside] of [
      ['a-dek', 'acme'],
      ['b-dek', 'acme'],
      ['c-dek', 'other'],
    ] as const) {
      await calls.create(name, { rotate_after_days: 1 });
      await attach(name, outside);
    }
    await calls.make('z-dek', 'pending_deletion');
    const store = new FaultyStore();
    const { dataDir, kek: ring } = kms;
    await using bare = await openUnsealed({ dataDir, ring, decorate: store.decorate });
    await using outside = new OutsideKeys({ file: customer.file, logger: bare.deps.logger });
    const clock = bare.deps.clock as FakeClock;
    clock.setWall(Date.now());
    const done: string[] = [];
    store.replaced.scrub = async (real) => {
      const state = (await kms.store.findKey('z-dek', 'current'))?.record?.state;
      done.push(`scrub, z-dek is ${state}`);
      return real();
    };
    const { asked } = customer.service;
    Object.defineProperty(customer.service, 'intercept', {
      get: () => (asked.at(-1)?.endsWith('/acme') ? refuse : undefined),
    });
    const refuse = (_request: unknown, response: ServerResponse) => {
      done.push('ask acme');
      response.destroy();
    };
    const sweep = new KeySweep({ ...bare.deps, outside });
    clock.advance(40 * 86_400_000);
    await sweep.run();
    expect(done).toEqual(['scrub, z-dek is destroyed', 'ask acme']);
    const versions = await Promise.all(
      ['a-dek', 'b-dek', 'c-dek'].map(
        async (name) => (await kms.store.findKey(name, 'current'))?.record?.version,
      ),
    );
    expect(versions).toEqual([2, 2, 3]);
  });
});

describe('bunkms outside rewrap --all', () => {
  it('goes on after a key that fails, and names at the end those that failed and why', async () => {
    await begin();
    await calls.create('a-dek');
    await attach('a-dek', 'acme');
    await attach('a-dek', 'other');
    await make(1, 'b-dek');
    await attach('b-dek', 'other');
    customer.service.keys.delete('acme');
    const environment = {
      BUNKMS_DATA_DIR: kms.dataDir,
      BUNKMS_KEK: kms.kek,
      BUNKMS_OUTSIDE_KEYS_FILE: customer.file,
    };
    const run = (...more: string[]) => bunkms(environment, 'outside', 'rewrap', '--all', 'other', ...more);
    const first = await run();
    expect(first.code).toBe(1);
    expect(first.stderr).toContain('1 key failed: a-dek (outside_key_');
    expect(await needsOf('b-dek')).toEqual(['other', 'other']);
    const again = await run('--json');
    expect(again.code).toBe(1);
    expect(JSON.parse(again.stdout)).toMatchObject({
      keys: [{ name: 'b-dek', other_versions: [] }],
      failed: [{ name: 'a-dek', detail: 'the outside key is acme' }],
    });
  });
});
