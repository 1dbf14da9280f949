import { AppError } from '@bundoc/shared/contract/app-error';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { KeyRefused } from '../kms/port.ts';
import { FakeKeyService } from '../testing/fake-key-service.ts';
import { createServiceShares } from '../work/service-shares.ts';
import { KeyCache, type KeyCacheOptions } from './key-cache.ts';

const TTL_MS = 900_000;

function start(options: Pick<KeyCacheOptions, 'spareKeysMax' | 'fetches' | 'onFetch' | 'random'> = {}) {
  const clock = new FakeClock();
  const service = new FakeKeyService(clock);
  // The moment of a refresh is drawn: at 80 % of a key's time here.
  const random = () => 2 / 3;
  const cache = new KeyCache({ keys: service.held, clock, ttlMs: TTL_MS, random, ...options });
  for (const project of ['a', 'b', 'c', 'd']) service.put(`${project}-dek`);
  return { clock, service, cache };
}

const fetchesOf = (keyFetches: number) => createServiceShares({ keyFetches }).keyFetches;

/** Lets the promises that are ready run. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('KeyCache', () => {
  it('asks once for a key that many callers want at once', async () => {
    const { service, cache } = start();
    const keys = await Promise.all(Array.from({ length: 100 }, () => cache.get('a')));
    expect(service.exports).toBe(1);
    expect(new Set(keys).size).toBe(1);
  });

  it('hands out no key at the end of its time, and fetches it again', async () => {
    const { clock, service, cache } = start();
    await cache.get('a');
    service.failure = new AppError('kms_unavailable');
    clock.advance(TTL_MS - 1);
    expect(cache.peek('a')).toBeDefined();
    clock.advance(1);
    expect(cache.peek('a')).toBeUndefined();
    await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable' });
  });

  it.each(['project_disabled', 'project_destroyed', 'key_not_found'] as const)(
    'hands out no key any more once a refresh was answered %s',
    async (code) => {
      const { clock, service, cache } = start();
      await cache.get('a');
      service.failure = new AppError(code);
      clock.advance(TTL_MS * 0.9);
      expect(cache.peek('a')).toBeDefined();
      await settle();
      expect(cache.peek('a')).toBeUndefined();
      await expect(cache.get('a')).rejects.toMatchObject({ code });
    },
  );

  it('tells fetches that fail from keys that are not there, or that somebody holds back', async () => {
    const outcomes: string[] = [];
    const { service, cache } = start({ onFetch: (outcome) => outcomes.push(outcome) });
    await cache.get('a');
    await expect(cache.get('new')).rejects.toMatchObject({ code: 'key_not_found' });
    const failures = ['project_disabled', 'project_destroyed', 'kms_unavailable', 'key_damaged'] as const;
    for (const [n, code] of failures.entries()) {
      service.failure = new AppError(code);
      await cache.get(`p${n}`).catch(() => undefined);
    }
    expect(outcomes).toEqual(['fetched', 'refused', 'refused', 'refused', 'failed', 'failed']);
  });

  it('counts the time of a machine that slept', async () => {
    const { clock, cache } = start();
    await cache.get('a');
    clock.sleep(TTL_MS);
    expect(cache.has('a')).toBe(false);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('keeps a key no longer because somebody set the wall clock back', async () => {
    const { clock, cache } = start();
    await cache.get('a');
    clock.advance(TTL_MS / 2);
    clock.setWall(clock.now() - 10 * TTL_MS);
    clock.advance(TTL_MS / 2);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('counts from before the request, however long the answer took', async () => {
    const { clock, service, cache } = start();
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const getting = cache.get('a');
    await settle();
    clock.advance(TTL_MS - 1);
    gate.resolve();
    await getting;
    expect(cache.has('a')).toBe(true);
    clock.advance(1);
    expect(cache.has('a')).toBe(false);
  });

  it('hands out no key that came after its time', async () => {
    const { clock, service, cache } = start();
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const getting = cache.get('a');
    await settle();
    clock.advance(TTL_MS);
    gate.resolve();
    await expect(getting).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 1 });
    expect(cache.size).toBe(0);
  });

  it('keeps no key beyond a lease that is shorter than its own time', async () => {
    const { clock, service, cache } = start();
    service.ttlMs = 1_000;
    await cache.get('a');
    clock.advance(1_000);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('fetches a key in use again from 80 % of its time on, in the background', async () => {
    const { clock, service, cache } = start();
    const first = await cache.get('a');
    clock.advance(TTL_MS * 0.8 - 1);
    cache.peek('a');
    await settle();
    expect(service.exports).toBe(1);
    clock.advance(1);
    expect(cache.peek('a')).toBe(first);
    await settle();
    expect(service.exports).toBe(2);
    clock.advance(TTL_MS * 0.5);
    expect(cache.peek('a')).toBeDefined();
  });

  it('does not fetch a key again that nobody uses', async () => {
    const { clock, service, cache } = start();
    await cache.get('a');
    clock.advance(TTL_MS * 0.9);
    expect(cache.has('a')).toBe(true);
    cache.sweep();
    await settle();
    expect(service.exports).toBe(1);
  });

  it('keeps the present key to its end when fetching it again fails, asking once a second at most', async () => {
    const { clock, service, cache } = start();
    const first = await cache.get('a');
    clock.advance(TTL_MS * 0.8);
    service.failure = new AppError('kms_unavailable');
    for (let n = 0; n < 50; n++) {
      expect(cache.peek('a')).toBe(first);
      await settle();
    }
    expect(service.exports).toBe(2);
    clock.advance(1_000);
    cache.peek('a');
    await settle();
    expect(service.exports).toBe(3);
    expect(cache.peek('a')).toBe(first);
  });

  it('gives the key up at once when the key service says that it is gone', async () => {
    const { clock, service, cache } = start();
    await cache.get('a');
    clock.advance(TTL_MS * 0.8);
    service.keys.delete('a-dek');
    cache.peek('a');
    await settle();
    expect(cache.peek('a')).toBeUndefined();
  });

  it('remembers a failure for a second, so that an outage makes no storm, and recovers by itself', async () => {
    const { clock, service, cache } = start();
    service.failure = new AppError('kms_unavailable');
    for (let n = 0; n < 100; n++)
      await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(service.exports).toBe(1);
    service.failure = undefined;
    clock.advance(1_000);
    await expect(cache.get('a')).resolves.toBeDefined();
  });

  it('lets more cold projects than it keeps wait for room, and fetches each once', async () => {
    const { service, cache } = start({ spareKeysMax: 2, fetches: fetchesOf(2) });
    const projects = Array.from({ length: 20 }, (_, n) => `p${n}`);
    for (const project of projects) service.put(`${project}-dek`);
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const getting = Promise.all(projects.map((project) => cache.get(project)));
    await settle();
    expect(service.running).toBe(2);
    gate.resolve();
    const keys = await getting;
    expect(new Set(keys.map(({ keyId }) => keyId)).size).toBe(20);
    expect(service.exports).toBe(20);
    expect(service.runningMax).toBe(2);
    expect(cache.size).toBe(2);
  });

  it('fetches the key of who asks for one before the many of another subject that wait already', async () => {
    const { service, cache } = start({ fetches: fetchesOf(2) });
    const cold = Array.from({ length: 100 }, (_, n) => `p${n}`);
    for (const project of cold) service.put(`${project}-dek`);
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const order: string[] = [];
    const getAs = (subject: string, project: string) =>
      runInShare({ subject, project }, () => cache.get(project)).then(() => order.push(subject));
    const flood = cold.map((project) => getAs('flood', project));
    await settle();
    const modest = getAs('modest', 'a');
    gate.resolve();
    await Promise.all([modest, ...flood]);
    expect(order.indexOf('modest')).toBeLessThan(5);
    expect(cache.fetchesWaiting).toBe(0);
  });

  it('charges background fetches to the service itself, not to the request that starts them', async () => {
    const fetches = fetchesOf(8);
    const { clock, service, cache } = start({ fetches });
    for (const project of ['a', 'b', 'c']) await cache.get(project);
    clock.advance(TTL_MS * 0.85);
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    runInShare({ subject: 'tenant', project: 'a' }, () =>
      ['a', 'b', 'c'].map((project) => cache.peek(project)),
    );
    await settle();
    expect([fetches.held, fetches.heldBy('tenant'), fetches.heldBy('')]).toEqual([3, 0, 3]);
    gate.resolve();
    await settle();
    expect(fetches.held).toBe(0);
  });

  it('drops the key used longest ago when there are too many', async () => {
    const { cache } = start({ spareKeysMax: 2 });
    for (const project of ['a', 'b', 'a', 'c']) await cache.get(project);
    expect([cache.has('a'), cache.has('b'), cache.has('c')]).toEqual([true, false, true]);
  });

  it('takes a new version once it learns of one, and serves the former until then', async () => {
    const { service, cache } = start();
    const first = await cache.get('a');
    await service.rotateKey('a-dek', 1);
    cache.revalidate('a');
    expect(cache.peek('a')).toBe(first);
    await settle();
    expect(cache.peek('a')?.version).toBe(2);
    cache.revalidate('unknown');
    await settle();
    expect(service.exports).toBe(2);
  });

  it('asks again for a key that may have changed until it is answered, and keeps it to its end meanwhile', async () => {
    const { clock, service, cache } = start();
    const first = await cache.get('a');
    await service.rotateKey('a-dek', 1);
    service.failure = new AppError('kms_unavailable');
    cache.revalidate('a');
    await settle();
    cache.sweep();
    await settle();
    expect([service.exports, cache.peek('a')]).toEqual([2, first]);
    service.failure = undefined;
    clock.advance(1_000);
    cache.sweep();
    await settle();
    expect(cache.peek('a')?.version).toBe(2);
    cache.sweep();
    await settle();
    expect(service.exports).toBe(3);
  });

  it('asks for every key and version again after a gap, a few at a time, and drops those that are refused', async () => {
    const { clock, service, cache } = start();
    const inSteps = async (isDone: () => boolean) => {
      for (let step = 0; step < 10 && !isDone(); step++) {
        await settle();
        clock.advance(1_000);
        cache.sweep();
      }
    };
    const projects = Array.from({ length: 30 }, (_, n) => `p${n}`);
    for (const project of projects) service.put(`${project}-dek`);
    for (const project of projects) await cache.get(project);
    await cache.get('p0', 1);
    service.keys.delete('p1-dek');
    service.runningMax = 0;
    const before = service.exports;
    cache.revalidateAll();
    await inSteps(() => service.exports - before === 31);
    expect(service.exports - before).toBe(31);
    await settle();
    expect(service.runningMax).toBe(8);
    expect([cache.has('p0'), cache.has('p0', 1), cache.has('p1'), cache.has('p2')]).toEqual([
      true,
      true,
      false,
      true,
    ]);
    service.failure = new AppError('kms_unavailable', { cause: new KeyRefused('disabled') });
    cache.revalidateAll();
    await inSteps(() => cache.size === 0);
    expect(cache.size).toBe(0);
  });

  it('lets a gap in the events delay nobody: a cold project’s key is asked for before those that may have changed', async () => {
    const { clock, service, cache } = start({ fetches: fetchesOf(10) });
    const projects = Array.from({ length: 1_000 }, (_, n) => `p${n}`);
    for (const project of projects) service.put(`${project}-dek`);
    for (const project of projects) {
      cache.hold(project);
      await cache.get(project);
    }
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const before = service.exports;
    cache.revalidateAll();
    expect(projects.every((project) => cache.peek(project) !== undefined)).toBe(true);
    // Two of the ten places are left to cold projects. The others wait for the next places, before the rest.
    const cold = Promise.all(['a', 'b', 'c', 'd'].map((project) => cache.get(project)));
    await settle();
    expect([service.running, cache.fetchesWaiting]).toEqual([10, 2 + 992]);
    clock.advance(60_000);
    cache.sweep();
    service.gate = undefined;
    gate.resolve();
    await cold;
    expect(service.exports - before).toBeLessThanOrEqual(8 + 4 + 20);
    expect(cache.size).toBe(1_004);
  });

  it('spreads the refreshes of 10,000 keys that came at once: no second has more than twice the mean, and no key ends', async () => {
    const { clock, service, cache } = start({ random: Math.random });
    const projects = Array.from({ length: 10_000 }, (_, n) => `p${n}`);
    for (const project of projects) service.put(`${project}-dek`);
    for (const project of projects) {
      cache.hold(project);
      await cache.get(project);
    }
    const perSecond: number[] = [];
    for (let second = 0; second < TTL_MS / 1_000; second++) {
      const before = service.exports;
      for (const project of projects)
        if (cache.peek(project) === undefined) throw new Error('a key has ended');
      cache.sweep();
      await settle();
      perSecond.push(service.exports - before);
      clock.advance(1_000);
    }
    const busy = perSecond.filter((count) => count > 0);
    const mean = busy.reduce((sum, count) => sum + count, 0) / busy.length;
    expect(perSecond.slice(0, 540).every((count) => count === 0)).toBe(true);
    expect(busy.length).toBeGreaterThan(250);
    expect(Math.max(...busy)).toBeLessThanOrEqual(2 * mean);
    expect(busy.reduce((sum, count) => sum + count, 0)).toBe(10_000);
  });

  it('keeps every key and version of held projects, however many others come', async () => {
    const { clock, service, cache } = start({ spareKeysMax: 2 });
    for (const project of ['a', 'b', 'c']) {
      cache.hold(project);
      await cache.get(project);
      await cache.get(project, 1);
    }
    for (let n = 0; n < 20; n++) {
      service.put(`p${n}-dek`);
      await cache.get(`p${n}`);
    }
    expect(cache.size).toBe(6 + 2);
    for (const project of ['a', 'b', 'c'])
      expect([cache.has(project), cache.has(project, 1)]).toEqual([true, true]);
    cache.release('a');
    cache.release('b');
    expect(cache.size).toBe(2 + 2);
    cache.evict('c');
    expect([cache.takeLost(), cache.takeLost()]).toEqual([['c'], []]);
    clock.sleep(TTL_MS);
    cache.sweep();
    expect(cache.size).toBe(0);
  });

  it('drops a key in every version when it is asked to, and no other', async () => {
    const { cache, service } = start();
    service.put('a-b-dek');
    for (const project of ['a', 'b', 'a-b']) await cache.get(project);
    await cache.get('a', 1);
    cache.evict('a');
    expect([cache.has('a'), cache.has('a', 1), cache.has('b'), cache.has('a-b')]).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  it.each(['evict', 'revalidate'] as const)(
    'keeps no answer that an event has overtaken (%s): it asks again, for all who wait',
    async (event) => {
      const { service, cache } = start();
      const gate = Promise.withResolvers<void>();
      service.afterExport = gate.promise;
      const getting = Promise.all([cache.get('a'), cache.get('a')]);
      await settle();
      await service.rotateKey('a-dek', 1);
      cache[event]('a');
      service.afterExport = undefined;
      gate.resolve();
      expect((await getting).map(({ version }) => version)).toEqual([2, 2]);
      expect([service.exports, cache.peek('a')?.version]).toEqual([2, 2]);
    },
  );

  it('gives up on a key that changes faster than it can be asked for', async () => {
    const { service, cache } = start();
    service.onExport = () => cache.evict('a');
    await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 1 });
    expect([service.exports, cache.has('a')]).toEqual([3, false]);
  });
});
