import { afterEach, describe, expect, it } from 'vitest';
import { commitOne, put, ref, remove } from '../../testing/writes.ts';
import type { Quota } from '../commit/quota.ts';
import type { ProjectStore } from '../port/port.ts';

const HEX = '0'.repeat(31);
const EXCEEDED = expect.objectContaining({ code: 'quota_exceeded' });

/** The tests of a quota that every engine must pass. `make` opens a new, empty project. */
export function describeQuota(name: string, make: (quota: Quota) => Promise<ProjectStore>): void {
  describe(`the quota of ${name}`, () => {
    const open: ProjectStore[] = [];
    const start = async (quota: Partial<Quota>): Promise<ProjectStore> => {
      const store = await make({ documentsMax: 0, bytesMax: 0, ...quota });
      open.push(store);
      return store;
    };
    afterEach(async () => {
      for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
    });
    const usageOf = async (store: ProjectStore) => {
      const collections = await store.collections();
      return {
        documents: collections.reduce((sum, { documents }) => sum + documents, 0),
        bytes: collections.reduce((sum, { bytes }) => sum + bytes, 0),
      };
    };
    const paddedBy = (bytes: number) => JSON.stringify({ pad: 'x'.repeat(bytes) });

    it('allows exactly its number of documents, and always allows replacing and deleting them', async () => {
      const store = await start({ documentsMax: 2 });
      await store.commit([put('a', '{"v":1}'), put('b', '{"v":1}')]);
      await expect(store.commit([put('c', '{"v":1}')])).rejects.toEqual(EXCEEDED);
      expect(await store.get(ref('c'))).toBeUndefined();
      await commitOne(store, put('a', '{"v":"longer than before"}'));
      await commitOne(store, remove('b'));
      await commitOne(store, put('c', '{"v":1}'));
      expect((await usageOf(store)).documents).toBe(2);
    });

    it('checks a commit as a whole, and writes nothing of a refused one', async () => {
      const store = await start({ documentsMax: 2 });
      await store.commit([put('a', '{"v":1}')]);
      const position = await store.position();
      await expect(
        store.commit([put('a', '{"v":2}'), put('b', '{"v":2}'), put('c', '{"v":2}')]),
      ).rejects.toEqual(EXCEEDED);
      expect([await store.position(), await store.get(ref('b'))]).toEqual([position, undefined]);
      expect(String((await store.get(ref('a')))?.text)).toContain('"v":1');
      await store.commit([put('b', '{"v":3}'), put('c', '{"v":3}'), remove('a')]);
      expect((await usageOf(store)).documents).toBe(2);
    });

    it('is exact for concurrent commits', async () => {
      const store = await start({ documentsMax: 7 });
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => store.commit([put(`d${n}`, '{"v":1}')])),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(7);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') expect(outcome.reason).toEqual(EXCEEDED);
      expect((await usageOf(store)).documents).toBe(7);
    });

    it('limits the sealed bytes exactly, and accepts writes that free bytes', async () => {
      const probe = await start({});
      await commitOne(probe, put('a', paddedBy(100)));
      const { bytes } = await usageOf(probe);
      const store = await start({ bytesMax: 2 * bytes });
      await store.commit([put('a', paddedBy(100)), put('b', paddedBy(100))]);
      expect((await usageOf(store)).bytes).toBe(2 * bytes);
      await expect(store.commit([put('a', paddedBy(101))])).rejects.toEqual(EXCEEDED);
      await commitOne(store, put('a', paddedBy(99)));
      await commitOne(store, put('b', paddedBy(101)));
      await expect(store.commit([put('c', '{}')])).rejects.toEqual(EXCEEDED);
      await store.commit([put('b', paddedBy(102)), put('a', paddedBy(98))]);
      await store.commit([remove('a'), put('c', paddedBy(98))]);
      expect((await usageOf(store)).bytes).toBe(2 * bytes);
    });

    it('reports failed preconditions and repeats first answers even when it is full', async () => {
      const store = await start({ documentsMax: 1 });
      const idempotency = { key: `${HEX}1`, request: `${HEX}2` };
      const first = await store.commit([put('a', '{"v":1}')], { idempotency });
      expect(await store.commit([put('a', '{"v":1}')], { idempotency })).toEqual(first);
      await expect(store.commit([put('b', '{}', { kind: 'present' })])).rejects.toMatchObject({
        code: 'precondition_failed',
      });
      const other = { key: `${HEX}3`, request: `${HEX}4` };
      await expect(store.commit([put('b', '{}')], { idempotency: other })).rejects.toEqual(EXCEEDED);
      // A refusal is not stored: once there is space, the same request succeeds.
      await commitOne(store, remove('a'));
      expect(await store.commit([put('b', '{}')], { idempotency: other })).toMatchObject([{ created: true }]);
    });
  });
}
