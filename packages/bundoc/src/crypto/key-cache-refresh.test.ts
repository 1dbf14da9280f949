import { AppError } from '@bundoc/shared/contract/app-error';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { KeyRefused } from '../kms/port.ts';
import { startCache, TTL_MS } from '../testing/started-key-cache.ts';

describe('a KeyCache that refreshes its keys', () => {
  it('refreshes a key in use in the background once 80 % of its lifetime have passed', async () => {
    const { clock, service, cache } = startCache();
    const first = await cache.get('a');
    clock.advance(TTL_MS * 0.8 - 1);
    cache.peek('a');
    await nextTurn();
    expect(service.exports).toBe(1);
    clock.advance(1);
    expect(cache.peek('a')).toBe(first);
    await nextTurn();
    expect(service.exports).toBe(2);
    clock.advance(TTL_MS * 0.5);
    expect(cache.peek('a')).toBeDefined();
  });

  it('does not refresh a key that nobody uses', async () => {
    const { clock, service, cache } = startCache();
    await cache.get('a');
    clock.advance(TTL_MS * 0.9);
    expect(cache.has('a')).toBe(true);
    cache.sweep();
    await nextTurn();
    expect(service.exports).toBe(1);
  });

  it('keeps the current key until it expires when a refresh fails, and tries once a second at most', async () => {
    const { clock, service, cache } = startCache();
    const first = await cache.get('a');
    clock.advance(TTL_MS * 0.8);
    service.failure = new AppError('kms_unavailable');
    for (let n = 0; n < 50; n++) {
      expect(cache.peek('a')).toBe(first);
      await nextTurn();
    }
    expect(service.exports).toBe(2);
    clock.advance(1_000);
    cache.peek('a');
    await nextTurn();
    expect(service.exports).toBe(3);
    expect(cache.peek('a')).toBe(first);
  });

  it('requests a key that may have changed until it gets an answer, and keeps it until it expires', async () => {
    const { clock, service, cache } = startCache();
    const first = await cache.get('a');
    await service.rotateKey('a-dek', 1);
    service.failure = new AppError('kms_unavailable');
    cache.revalidate('a');
    await nextTurn();
    cache.sweep();
    await nextTurn();
    expect([service.exports, cache.peek('a')]).toEqual([2, first]);
    service.failure = undefined;
    clock.advance(1_000);
    cache.sweep();
    await nextTurn();
    expect(cache.peek('a')?.version).toBe(2);
    cache.sweep();
    await nextTurn();
    expect(service.exports).toBe(3);
  });

  it('refreshes of customers that hang keep no other key from its refresh', async () => {
    const { clock, service, cache } = startCache();
    const customers = Array.from({ length: 30 }, (_, n) => `customer${n}`);
    for (const project of customers)
      service.put(`${project}-dek`).wrapped = Buffer.alloc(69, 2).toString('base64');
    for (const project of [...customers, 'a']) await cache.get(project);
    const exportKey = service.exportKey.bind(service);
    const { promise: never, resolve } = Promise.withResolvers<void>();
    const asked: string[] = [];
    service.exportKey = async (name, ...more) => {
      asked.push(name);
      if (name.startsWith('customer')) await never;
      return await exportKey(name, ...more);
    };
    clock.advance(TTL_MS * 0.8);
    for (const project of [...customers, 'a']) cache.peek(project);
    await nextTurn();
    expect(asked.filter((name) => name.startsWith('customer'))).toHaveLength(8);
    expect(asked).toContain('a-dek');
    resolve();
  });

  it('requests every key and version after a gap in the events, a few at a time, and drops refused ones', async () => {
    const { clock, service, cache } = startCache();
    const inSteps = async (isDone: () => boolean) => {
      for (let step = 0; step < 10 && !isDone(); step++) {
        await nextTurn();
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
    await nextTurn();
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

  it('requests the key of a cold project before those that may have changed in a gap of the events', async () => {
    const { clock, service, cache } = startCache();
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
    // Eight are fetched in the background. Those of cold projects do not wait for the others.
    const cold = Promise.all(['a', 'b', 'c', 'd'].map((project) => cache.get(project)));
    await nextTurn();
    expect([service.running, cache.fetchesWaiting]).toEqual([8 + 4, 992]);
    clock.advance(60_000);
    cache.sweep();
    service.gate = undefined;
    gate.resolve();
    await cold;
    expect(service.exports - before).toBeLessThanOrEqual(8 + 4 + 20);
    expect(cache.size).toBe(1_004);
  });

  it('spreads the refreshes of 10,000 keys: no second has more than twice the mean, and no key expires', async () => {
    const { clock, service, cache } = startCache({ random: Math.random });
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
      await nextTurn();
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

  it('refreshes 3,000 keys with leases of 60 s in time, beside one of 15 minutes', async () => {
    const { clock, service, cache } = startCache({ random: Math.random });
    const projects = Array.from({ length: 3_000 }, (_, n) => `p${n}`);
    for (const project of ['long', ...projects]) {
      service.put(`${project}-dek`);
      service.ttlMs = project === 'long' ? TTL_MS : 60_000;
      cache.hold(project);
      await cache.get(project);
    }
    for (let second = 0; second < 130; second++) {
      const ended = projects.filter((project) => cache.peek(project) === undefined);
      expect(ended, `in second ${second}`).toEqual([]);
      cache.sweep();
      await nextTurn();
      clock.advance(1_000);
    }
  });

  it.each(['evict', 'revalidate'] as const)(
    'discards an answer that an event has overtaken (%s), and requests the key again for all callers',
    async (event) => {
      const { service, cache } = startCache();
      const gate = Promise.withResolvers<void>();
      service.afterExport = gate.promise;
      const getting = Promise.all([cache.get('a'), cache.get('a')]);
      await nextTurn();
      await service.rotateKey('a-dek', 1);
      cache[event]('a');
      service.afterExport = undefined;
      gate.resolve();
      expect((await getting).map(({ version }) => version)).toEqual([2, 2]);
      expect([service.exports, cache.peek('a')?.version]).toEqual([2, 2]);
    },
  );

  it('gives up on a key that changes faster than it can be requested', async () => {
    const { service, cache } = startCache();
    service.onExport = () => cache.evict('a');
    await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 1 });
    expect([service.exports, cache.has('a')]).toEqual([3, false]);
  });
});
