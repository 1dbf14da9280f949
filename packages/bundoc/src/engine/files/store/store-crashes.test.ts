import { describe, expect, it } from 'vitest';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { documentFiles, started } from '../../../testing/started-store.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import { createSealedCache } from '../documents/sealed-cache.ts';

describe('data that one process wrote and did not sync', () => {
  const crashes = (disk: SimulatedDisk, operation: number, when: 'before' | 'after' = 'before') =>
    disk.failAt({ operation, when, what: 'crash' });

  /**
   * Killed at each operation of a commit, a new process continues with what it finds, and then the power is
   * cut.
   */
  it.each(['before', 'after'] as const)(
    'is made durable by the next one before that builds on it (killed %s an operation)',
    async (when) => {
      for (let operation = 1; operation < 40; operation++) {
        const { project, disk, store } = await started();
        crashes(disk, operation, when);
        const write = commitOne(store, put('a', `{"v":1,"pad":"${'x'.repeat(9_000)}"}`));
        const first = await Promise.race([write, disk.crashes]).catch(() => undefined);
        const others = commitOne(store, put('b', '{"v":2}'))
          .then(() => store.checkpoint())
          .then(() => commitOne(store, remove('b')))
          .then(() => store.checkpoint());
        const deleted = await Promise.race([others, disk.crashes]).catch(() => undefined);
        if (!disk.crashed) break;
        const second = disk.restart();
        const next = await project.open(second);
        const before = await next.get(ref('a'));
        if (first !== undefined) expect(before?.metadata).toEqual(first.metadata);
        await commitOne(next, put('c', '{"v":3}'));
        const third = second.powerCut('synced only');
        const last = await project.open(third);
        expect((await last.get(ref('a')))?.metadata, `operation ${operation}`).toEqual(before?.metadata);
        expect((await last.get(ref('c')))?.text.toString()).toContain('"v":3');
        expect(deleted).toBeUndefined();
      }
    },
  );

  it('a removal that one process did not sync is made durable by the next, so no document comes back', async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    await commitOne(store, remove('a'));
    await expect.poll(() => documentFiles(disk)).toEqual([]);
    const second = disk.restart();
    await (await project.open(second)).checkpoint();
    expect(documentFiles(second.powerCut('synced only'))).toEqual([]);
  });

  it('never outlives the folder of its documents, whichever names a power cut removes', async () => {
    for (let survivor = 0; survivor < 8; survivor++) {
      const { project, disk, store } = await started();
      await store.checkpoint();
      await commitOne(store, put('a', '{}'));
      let isReplaced = false;
      disk.failing = (operation) => {
        if (isReplaced && operation === 'sync /p') return 'before';
        isReplaced ||= /^rename .* \/p\/catalog$/.test(operation);
        return undefined;
      };
      await expect(store.checkpoint()).rejects.toMatchObject({ code: 'storage_unavailable' });
      let change = 0;
      const again = await project.open(disk.powerCut({ random: () => (change++ === survivor ? 0 : 1) }));
      expect(await again.get(ref('a')), `name ${survivor} survives`).toBeDefined();
    }
  });

  it('a document file whose sync failed is written again from the log', async () => {
    for (let operation = 1; operation < 12; operation++) {
      const { project, disk, store } = await started();
      await commitOne(store, put('a', '{"v":1}'));
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      for (let n = 0; n < 3; n++) await store.checkpoint().catch(() => undefined);
      const again = await project.open(disk.powerCut('synced only'));
      expect((await again.get(ref('a')))?.text.toString(), `operation ${operation}`).toContain('"v":1');
    }
  });

  it('never counts as durable after a failed sync', async () => {
    for (let operation = 1; operation < 30; operation++) {
      const { project, disk, store } = await started();
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      const acknowledged: string[] = [];
      for (const id of ['a', 'b', 'c']) {
        await commitOne(store, put(id, `{"pad":"${'x'.repeat(3_000)}"}`))
          .then(() => acknowledged.push(id))
          .catch(() => undefined);
      }
      await store.checkpoint().catch(() => undefined);
      await store[Symbol.asyncDispose]();
      disk.failAt();
      const again = await project.open(disk);
      await commitOne(again, put('d', '{}'));
      const last = await project.open(disk.powerCut('synced only'));
      for (const id of [...acknowledged, 'd'])
        expect(await last.get(ref(id)), `operation ${operation}: ${id}`).toBeDefined();
    }
  });
});

describe('a cache that outlives the store', () => {
  it('makes no integrity error of a commit whose sync failed and which is found again', async () => {
    for (let operation = 1; operation < 8; operation++) {
      const { project, disk, store: first } = await started();
      await first[Symbol.asyncDispose]();
      const cache = createSealedCache(1_000_000);
      const store = await project.open(disk, cache);
      await commitOne(store, put('a', '{"v":1}'));
      await store.checkpoint();
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      await commitOne(store, put('a', '{"v":2}')).catch(() => undefined);
      await store[Symbol.asyncDispose]();
      const again = await project.open(disk.restart(), cache);
      await again.checkpoint();
      expect(await again.get(ref('a')), `operation ${operation}`).toBeDefined();
      expect(project.damaged).toEqual([]);
    }
  });
});

describe('on a full disk', () => {
  it.each(['before', 'after'] as const)(
    'a write that runs out of space loses nothing, even if space was taken before (%s)',
    async (when) => {
      for (let operation = 1; operation < 12; operation++) {
        const { project, disk, store } = await started();
        disk.failAt({ operation, when, what: 'disk_full' });
        const acknowledged: string[] = [];
        for (const id of ['a', 'b', 'c']) {
          await commitOne(store, put(id, '{}'))
            .then(() => acknowledged.push(id))
            .catch(() => undefined);
        }
        for (const survival of ['synced only', 'everything'] as const) {
          const again = await project.open(disk.powerCut(survival));
          for (const id of acknowledged)
            expect(await again.get(ref(id)), `operation ${operation}: ${id}`).toBeDefined();
        }
      }
    },
  );

  const full = async () => {
    const { project, disk, store } = await started();
    for (let n = 0; n < 40; n++) await commitOne(store, put(`d${n}`, '{}'));
    disk.full = true;
    const fill = async () => {
      for (let n = 0; n < 100; n++) await commitOne(store, put('other', `{"pad":"${'x'.repeat(200)}"}`));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
    return { project, disk, store, fill };
  };

  it('a delete succeeds even if a put in its frame is refused', async () => {
    const { store } = await full();
    const [refused, removed, absent] = await Promise.allSettled([
      store.commit([put('new', '{}')]),
      store.commit([remove('d1')]),
      store.commit([remove('none')]),
    ]);
    expect(refused).toMatchObject({ reason: { code: 'disk_full' } });
    expect(removed).toMatchObject({ status: 'fulfilled' });
    expect(absent).toMatchObject({ reason: { code: 'document_not_found' } });
    expect(await store.get(ref('d1'))).toBeUndefined();
  });

  it('only deletes use the reserve, even if many writers try', async () => {
    const { project, disk, store, fill } = await full();
    for (let n = 0; n < 6; n++) {
      await commitOne(store, remove(`d${n}`));
      await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
      await store.checkpoint().catch(() => undefined);
    }
    disk.full = false;
    await expect
      .poll(() =>
        fill().then(
          () => 'written',
          () => 'refused',
        ),
      )
      .toBe('written');
    const again = await project.open(disk.powerCut('synced only'));
    for (let n = 0; n < 40; n++) expect((await again.get(ref(`d${n}`))) !== undefined, `d${n}`).toBe(n >= 6);
  });
});
