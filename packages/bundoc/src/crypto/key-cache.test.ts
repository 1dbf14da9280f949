import { AppError } from '@bundoc/shared/contract/app-error';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { startCache, TTL_MS } from '../testing/started-key-cache.ts';

describe('a KeyCache', () => {
  it('requests a key once for many concurrent callers', async () => {
    const { service, cache } = startCache();
    const keys = await Promise.all(Array.from({ length: 100 }, () => cache.get('a')));
    expect(service.exports).toBe(1);
    expect(new Set(keys).size).toBe(1);
  });

  it('returns no expired key, and requests it again', async () => {
    const { clock, service, cache } = startCache();
    await cache.get('a');
    service.failure = new AppError('kms_unavailable');
    clock.advance(TTL_MS - 1);
    expect(cache.peek('a')).toBeDefined();
    clock.advance(1);
    expect(cache.peek('a')).toBeUndefined();
    await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable' });
  });

  it.each(['project_disabled', 'project_destroyed', 'key_not_found'] as const)(
    'returns no key once a refresh was answered with %s',
    async (code) => {
      const { clock, service, cache } = startCache();
      await cache.get('a');
      service.failure = new AppError(code);
      clock.advance(TTL_MS * 0.9);
      expect(cache.peek('a')).toBeDefined();
      await nextTurn();
      expect(cache.peek('a')).toBeUndefined();
      await expect(cache.get('a')).rejects.toMatchObject({ code });
    },
  );

  it('distinguishes failed requests from missing and withheld keys in its metrics', async () => {
    const outcomes: string[] = [];
    const { service, cache } = startCache({ onFetch: (outcome) => outcomes.push(outcome) });
    await cache.get('a');
    await expect(cache.get('new')).rejects.toMatchObject({ code: 'key_not_found' });
    const failures = ['project_disabled', 'project_destroyed', 'kms_unavailable', 'key_damaged'] as const;
    for (const [n, code] of failures.entries()) {
      service.failure = new AppError(code);
      await cache.get(`p${n}`).catch(() => undefined);
    }
    expect(outcomes).toEqual(['fetched', 'refused', 'refused', 'refused', 'failed', 'failed']);
  });

  it('counts the time that a machine slept', async () => {
    const { clock, cache } = startCache();
    await cache.get('a');
    clock.sleep(TTL_MS);
    expect(cache.has('a')).toBe(false);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('keeps a key no longer when the wall clock is set back', async () => {
    const { clock, cache } = startCache();
    await cache.get('a');
    clock.advance(TTL_MS / 2);
    clock.setWall(clock.now() - 10 * TTL_MS);
    clock.advance(TTL_MS / 2);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('counts the lifetime of a key from before its request, however late the answer is', async () => {
    const { clock, service, cache } = startCache();
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const getting = cache.get('a');
    await nextTurn();
    clock.advance(TTL_MS - 1);
    gate.resolve();
    await getting;
    expect(cache.has('a')).toBe(true);
    clock.advance(1);
    expect(cache.has('a')).toBe(false);
  });

  it('returns no key whose answer arrived after the key had expired', async () => {
    const { clock, service, cache } = startCache();
    const gate = Promise.withResolvers<void>();
    service.gate = gate.promise;
    const getting = cache.get('a');
    await nextTurn();
    clock.advance(TTL_MS);
    gate.resolve();
    await expect(getting).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 1 });
    expect(cache.size).toBe(0);
  });

  it('keeps no key beyond its lease, even if that is shorter than the configured time', async () => {
    const { clock, service, cache } = startCache();
    service.ttlMs = 1_000;
    await cache.get('a');
    clock.advance(1_000);
    expect(cache.peek('a')).toBeUndefined();
  });

  it('drops a key at once when the key service says that it is gone', async () => {
    const { clock, service, cache } = startCache();
    await cache.get('a');
    clock.advance(TTL_MS * 0.8);
    service.keys.delete('a-dek');
    cache.peek('a');
    await nextTurn();
    expect(cache.peek('a')).toBeUndefined();
  });

  it('remembers a failure for a second, so that an outage causes no storm of requests, and recovers', async () => {
    const { clock, service, cache } = startCache();
    service.failure = new AppError('kms_unavailable');
    for (let n = 0; n < 100; n++)
      await expect(cache.get('a')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(service.exports).toBe(1);
    service.failure = undefined;
    clock.advance(1_000);
    await expect(cache.get('a')).resolves.toBeDefined();
  });

  it('drops the least recently used key when there are too many', async () => {
    const { cache } = startCache({ spareKeysMax: { own: 2, ofCustomers: 3 } });
    for (const project of ['a', 'b', 'a', 'c']) await cache.get(project);
    expect([cache.has('a'), cache.has('b'), cache.has('c')]).toEqual([true, false, true]);
  });

  it('switches to a new version once it learns of one, and returns the former until then', async () => {
    const { service, cache } = startCache();
    const first = await cache.get('a');
    await service.rotateKey('a-dek', 1);
    cache.revalidate('a');
    expect(cache.peek('a')).toBe(first);
    await nextTurn();
    expect(cache.peek('a')?.version).toBe(2);
    cache.revalidate('unknown');
    await nextTurn();
    expect(service.exports).toBe(2);
  });

  it('keeps more keys of customers, whom each fetch asks, and lets neither kind push out the other', async () => {
    const { service, cache } = startCache({ spareKeysMax: { own: 2, ofCustomers: 3 } });
    for (const project of ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'b3']) {
      const format = project.startsWith('a') ? 2 : 1;
      service.put(`${project}-dek`).wrapped = Buffer.alloc(69, format).toString('base64');
      await cache.get(project);
    }
    const kept = ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'b3'].filter((project) => cache.has(project));
    expect(kept).toEqual(['a2', 'a3', 'a4', 'b2', 'b3']);
  });

  it('keeps every key and version of projects in use, however many other keys it requests', async () => {
    const { clock, service, cache } = startCache({ spareKeysMax: { own: 2, ofCustomers: 3 } });
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

  it('drops every version of a key on request, and no other key', async () => {
    const { cache, service } = startCache();
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
});
