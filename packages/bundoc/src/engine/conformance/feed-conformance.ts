import { describe, expect, it, vi } from 'vitest';
import { openStores, type StoreUnderTest } from '../../testing/store-under-test.ts';
import { WorkBench } from '../../testing/work-bench.ts';
import { commitOne, put, ref, remove } from '../../testing/writes.ts';
import { Scheduler, SLICE_US } from '../../work/scheduler.ts';
import type { ProjectStore } from '../port/port.ts';

const ids = (documents: readonly { metadata: { _id: string } }[]) =>
  documents.map(({ metadata }) => metadata._id);

/** Tests of reads of many documents or changes that every implementation of the storage port must pass. */
export function describeFeeds(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} as a ProjectStore, in lists and changes,`, () => {
    const { start, open } = openStores(make);

    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };

    it('lists a collection in the order of creation, page by page', async () => {
      const { store, reopen } = await start();
      for (const id of ['c', 'a', 'd', 'b']) await commitOne(store, put(id, '{}'));
      await store.commit([{ ...put('x', '{}'), ref: ref('x', 'other') }]);
      await commitOne(store, put('a', '{"again":1}'));
      await commitOne(store, remove('d'));
      await commitOne(store, put('d', '{}'));
      const check = async (from: ProjectStore) => {
        const first = await from.list({ collection: 'notes', after: 0, limit: 3, bytesMax: 1_000_000 });
        expect(ids(first.documents)).toEqual(['c', 'a', 'b']);
        const second = await from.list({
          collection: 'notes',
          after: first.next ?? Number.NaN,
          limit: 3,
          bytesMax: 1_000_000,
        });
        expect(ids(second.documents)).toEqual(['d']);
        expect(second.next).toBeUndefined();
        expect(
          (await from.list({ collection: 'none', after: 0, limit: 3, bytesMax: 1_000_000 })).documents,
        ).toEqual([]);
      };
      await check(store);
      await store.checkpoint();
      await check(store);
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      await check(next);
    });

    it('decrypts no document of a page before the turn of its work', async () => {
      const { store } = await start();
      await store.commit([put('a', '{}'), put('b', '{}')]);
      const bench = new WorkBench();
      await using scheduler = new Scheduler(bench.ports);
      using busy = scheduler.work({ subject: 'other', project: 'q' }, 'query');
      expect(busy.pause()).toBeUndefined();
      bench.take(SLICE_US);
      using work = scheduler.work({ subject: 's', project: 'p' }, 'query');
      const listed = store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000, work });
      await vi.waitFor(() => expect(scheduler.waiting).toBe(1));
      await bench.turn();
      expect(ids((await listed).documents)).toEqual(['a', 'b']);
    });

    it('ends a page early when its documents are large, and never gives an empty one before the end', async () => {
      const { store } = await start();
      for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, `{"pad":"${'x'.repeat(1_000)}"}`));
      const sizes: number[] = [];
      for (let after: number | undefined = 0; after !== undefined; ) {
        const page = await store.list({ collection: 'notes', after, limit: 100, bytesMax: 2_500 });
        sizes.push(page.documents.length);
        after = page.next;
      }
      expect(sizes).toEqual([2, 1]);
      const page = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1 });
      expect(page.documents).toHaveLength(1);
    });

    it('refuses a position after its last commit, because it belongs to another history', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      const { position } = await store.changes(0, 10);
      expect((await store.changes(position, 10)).changes).toEqual([]);
      const gone = expect.objectContaining({ code: 'position_gone' });
      await expect(store.changes(position + 1, 10)).rejects.toEqual(gone);
      await expect(store.changes(position + 1, 10, position + 1)).rejects.toEqual(gone);
    });

    it('lists each document once, at its last change, and lists deletions, too', async () => {
      const { store, reopen } = await start();
      for (const write of [put('a', '{}'), put('b', '{}'), put('c', '{}'), put('a', '{"v":2}'), remove('b')])
        await commitOne(store, write);
      const check = async (from: ProjectStore) => {
        const { changes, position } = await from.changes(0, 10);
        expect(changes.map(({ ref: { id }, deleted }) => [id, deleted])).toEqual([
          ['c', false],
          ['a', false],
          ['b', true],
        ]);
        expect((await from.changes(position, 10)).changes).toEqual([]);
        const page = await from.changes(0, 2);
        expect((await from.changes(page.position, 2)).changes.map(({ ref: { id } }) => id)).toEqual(['b']);
      };
      await check(store);
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      await check(next);
      const { position } = await next.changes(0, 10);
      await commitOne(next, put('e', '{}'));
      expect((await next.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['e']);
    });

    const never = new AbortController().signal;

    it('returns the position of the latest commit, from which a reader continues', async () => {
      const { store, reopen } = await start();
      await commitOne(store, put('a', '{}'));
      await commitOne(store, remove('a'));
      const position = await store.position();
      expect(position).toBe((await store.changes(0, 10)).position);
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      expect(await next.position()).toBe(position);
      await commitOne(next, put('b', '{}'));
      expect((await next.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['b']);
    });

    it('does not wait for a change that exists already', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      expect(await store.waitForChange(0, never)).toBe(await store.position());
    });

    it('wakes all waiting readers as soon as a change or deletion can be read', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      for (const write of [put('b', '{}'), put('a', '{"v":2}'), remove('a')]) {
        const before = await store.position();
        const seen = Array.from({ length: 3 }, async () => {
          const position = await store.waitForChange(before, never);
          return [position, (await store.changes(before, 10)).changes.map(({ ref: { id } }) => id)];
        });
        await commitOne(store, write);
        const after = await store.position();
        expect(await Promise.all(seen)).toEqual(Array.from({ length: 3 }, () => [after, [write.ref.id]]));
      }
    });

    it('wakes no reader for a refused or repeated commit', async () => {
      const { store } = await start();
      await store.commit([put('a', '{}')], { idempotency });
      const before = await store.position();
      let woken = false;
      const waiting = store.waitForChange(before, never).finally(() => {
        woken = true;
      });
      await expect(store.commit([put('b', '{}'), put('a', '{}', { kind: 'absent' })])).rejects.toMatchObject({
        code: 'precondition_failed',
      });
      await store.commit([put('a', '{}')], { idempotency });
      expect([await store.position(), woken]).toEqual([before, false]);
      await commitOne(store, put('c', '{}'));
      expect(await waiting).toBe(await store.position());
    });

    it('ends the wait for a change when the signal is aborted, and when the store is closed', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      const position = await store.position();
      const stop = new AbortController();
      const [stopped, other] = [
        store.waitForChange(position, stop.signal),
        store.waitForChange(position, never),
      ];
      stop.abort();
      expect(await stopped).toBeUndefined();
      expect(await store.waitForChange(position, stop.signal)).toBeUndefined();
      await store[Symbol.asyncDispose]();
      expect(await other).toBeUndefined();
    });

    it('returns the stored bytes for a backup, complete up to its position', async () => {
      const { store } = await start();
      const begin = await store.position();
      await store.commit([put('a', '{}'), put('b', '{}'), put('c', '{}')]);
      await commitOne(store, remove('b'));
      const first = await store.sealedChanges(begin, { limit: 1, bytesMax: 1_000_000 });
      expect([first.changes.map(({ state }) => state.id), first.isComplete]).toEqual([['a'], false]);
      const small = await store.sealedChanges(begin, { limit: 10, bytesMax: 1 });
      expect([small.changes.length, small.isComplete]).toEqual([1, false]);
      const rest = await store.sealedChanges(first.position, { limit: 10, bytesMax: 1_000_000 });
      expect(rest.changes.map(({ state, sealed }) => [state.id, sealed?.length])).toEqual([
        ['c', rest.changes[0]?.state.size],
        ['b', undefined],
      ]);
      expect([rest.isComplete, rest.position]).toEqual([true, await store.position()]);
    });

    it('counts the documents of each collection', async () => {
      const { store } = await start();
      await store.commit([put('a', '{}'), put('b', '{}'), { ...put('x', '{}'), ref: ref('x', 'other') }]);
      await commitOne(store, remove('b'));
      const collections = await store.collections();
      expect(collections.map(({ name, documents }) => [name, documents])).toEqual([
        ['notes', 1],
        ['other', 1],
      ]);
    });
  });
}
