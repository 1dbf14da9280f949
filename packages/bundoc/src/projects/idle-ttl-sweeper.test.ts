import { describe, expect, it } from 'vitest';
import type { CollectionStore } from '../collections/port.ts';
import { ExpiryMarksInFolders } from '../engine/files/projects/expiry-marks.ts';
import { SWEEP_INTERVAL_MS } from '../engine/projects/expiry-marks.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import { put } from '../testing/writes.ts';
import { IdleTtlSweeper } from './idle-ttl-sweeper.ts';

const ANY = { kind: 'none' } as const;

/** A process; earlier ones may have left something. */
function start(
  { clock, disk, service } = newPlace(),
  { pagesMax, ...options }: { readonly openBytesMax?: number; readonly pagesMax?: number } = {},
) {
  const marks = new ExpiryMarksInFolders({ disk, directory: '/projects', clock });
  const { instances, logger } = openInstances({ clock, disk, service }, { expiry: marks, ...options });
  const sweeper = new IdleTtlSweeper({
    marks,
    instances,
    logger,
    ...(pagesMax === undefined ? {} : { pagesMax }),
  });
  const using = async <T>(project: string, action: (store: CollectionStore) => Promise<T>) => {
    using lease = await instances.acquire(project, 'create');
    return await action(lease.store);
  };
  /** With documents `d0` and so on, which expire a second from now. */
  const fill = (project: string, count: number) =>
    using(project, async (store) => {
      await store.define('notes', { indexes: [], ttl: { field: '_created', seconds: 1 } }, ANY);
      for (let n = 0; n < count; n++) await store.commit([put(`d${n}`, '{}')]);
    });
  const counted = (project: string) =>
    using(project, async (store) => (await store.collections())[0]?.documents ?? 0);
  return { clock, disk, service, instances, sweeper, using, fill, counted };
}
describe('expired documents of a project that is not open', () => {
  it('are removed within the hour, even after a restart, and the project is closed again', async () => {
    const place = newPlace();
    const first = start(place);
    await first.fill('p', 3);
    await first.using('plain', (store) => store.commit([put('a', '{}')]));
    await first.instances[Symbol.asyncDispose]();
    const next = start(place);
    const exports = place.service.exports;
    await next.sweeper.sweep();
    expect([next.instances.size, place.service.exports - exports]).toEqual([0, 0]);
    place.clock.advance(SWEEP_INTERVAL_MS);
    await next.sweeper.sweep();
    // One key was fetched, and none for the project without a time to live.
    expect([next.instances.size, place.service.exports - exports]).toEqual([0, 1]);
    expect(await next.counted('p')).toBe(0);
  });

  it('stay on a full disk, and are removed by an attempt a minute later', async () => {
    const { clock, instances, sweeper, fill, counted } = start(newPlace(), { openBytesMax: 1 });
    await fill('p', 3);
    clock.advance(SWEEP_INTERVAL_MS);
    instances.sweep();
    await counted('other');
    await sweeper.sweep();
    expect(instances.stateOf('other').isOpen).toBe(true);
    clock.advance(1_000_000);
    instances.sweep();
    await expect.poll(() => instances.size).toBe(0);
    await sweeper.sweep();
    expect(await counted('p')).toBe(0);
  });

  it('are removed by further sweeps when they are too many for one', async () => {
    const { clock, instances, sweeper, fill, using, counted } = start(newPlace(), { pagesMax: 2 });
    await fill('p', 0);
    await using('p', (store) => store.commit(Array.from({ length: 500 }, (_, n) => put(`e${n}`, '{}'))));
    clock.advance(SWEEP_INTERVAL_MS);
    instances.sweep();
    await sweeper.sweep();
    const left = await using('p', async (store) => (await store.collections())[0]?.documents);
    expect(left).toBe(100);
    clock.advance(SWEEP_INTERVAL_MS);
    instances.sweep();
    await sweeper.sweep();
    expect(await counted('p')).toBe(0);
  });

  it('are no longer swept once the project has no time to live', async () => {
    const { clock, disk, instances, sweeper, fill, using, service } = start();
    await fill('p', 1);
    await using('p', (store) => store.define('notes', undefined, ANY));
    expect(await disk.list('/projects/p')).toContain('expires-1');
    clock.advance(SWEEP_INTERVAL_MS);
    instances.sweep();
    await sweeper.sweep();
    expect(await disk.list('/projects/p')).not.toContain('expires-1');
    const { exports } = service;
    clock.advance(2 * SWEEP_INTERVAL_MS);
    await sweeper.sweep();
    expect(service.exports).toBe(exports);
  });
});
