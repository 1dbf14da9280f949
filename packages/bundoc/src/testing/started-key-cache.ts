import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { KeyCache, type KeyCacheOptions } from '../crypto/key-cache.ts';
import { FakeKeyService } from './fake-key-service.ts';

export const TTL_MS = 900_000;

export function startCache(options: Pick<KeyCacheOptions, 'spareKeysMax' | 'onFetch' | 'random'> = {}) {
  const clock = new FakeClock();
  const service = new FakeKeyService(clock);
  // The moment of a refresh is drawn: at 80 % of a key's time here.
  const random = () => 2 / 3;
  const cache = new KeyCache({ keys: service.held, clock, ttlMs: TTL_MS, random, ...options });
  for (const project of ['a', 'b', 'c', 'd']) service.put(`${project}-dek`);
  return { clock, service, cache };
}

/** Lets the promises that are ready run. */
