import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { openStores, type StoreUnderTest } from '../../testing/store-under-test.ts';
import { commitOne, put, remove } from '../../testing/writes.ts';
import type { Position, ProjectStore } from '../port/port.ts';
import { positionAt } from '../port/positions.ts';

export interface TakenOverStore extends StoreUnderTest {
  /** BunKMS says that a copy of the storage has taken over at this time. */
  takeOver(takenOverMs: number): Promise<void>;
}

const GONE = { code: 'position_gone' };
const idsAfter = async (store: ProjectStore, after: Position, horizon?: Position) =>
  (await store.changes(after, 100, horizon)).changes.map(({ ref: { id } }) => id);

/** What followers of the feed see when a copy of the storage takes over, with either engine. */
export function describeTakeOvers(name: string, make: () => Promise<TakenOverStore>): void {
  describe(`${name} after a take-over`, () => {
    const { start, open } = openStores(make);

    /** At each moment: after a reopening, with and without a checkpoint. */
    async function always(
      under: TakenOverStore,
      check: (store: ProjectStore) => Promise<void>,
    ): Promise<void> {
      let { store } = under;
      for (const isCheckpointed of [false, true]) {
        await check(store);
        if (isCheckpointed) await store.checkpoint();
        await store[Symbol.asyncDispose]();
        store = await under.reopen();
        open.push(store);
      }
      await check(store);
    }

    it('makes every follower restart, even before the next commit', async () => {
      const under = await start();
      const { store } = under;
      await store.commit([put('a', '{}'), put('b', '{}'), put('c', '{}')]);
      const end = await store.position();
      await under.takeOver(1_000);
      const floor = positionAt(1_000);
      // A follower that has read only a part, too: an unread document may now have an earlier position.
      for (const gone of [1, end, end + 1, floor - 1])
        for (const horizon of [0, gone])
          await expect(store.changes(gone, 10, horizon)).rejects.toMatchObject(GONE);
      const fresh = await store.changes(0, 10);
      expect(fresh.changes).toHaveLength(3);
      await commitOne(store, put('d', '{}'));
      await always(under, async (from) => {
        expect(await from.position()).toBe(floor + 1);
        expect(await idsAfter(from, 0)).toEqual(['a', 'b', 'c', 'd']);
        // A follower that began after the take-over continues, even from the middle.
        expect(await idsAfter(from, fresh.position, fresh.horizon)).toEqual(['d']);
        expect(await idsAfter(from, end - 1, fresh.horizon)).toEqual(['c', 'd']);
        for (const gone of [end, floor - 1, floor + 2])
          await expect(from.changes(gone, 10)).rejects.toMatchObject(GONE);
      });
    });

    it('repeats no position, however often the same copy takes over', async () => {
      const under = await start();
      const { store } = under;
      await under.takeOver(2_000);
      await commitOne(store, put('a', '{}'));
      const first = await store.position();
      await store.checkpoint();
      await under.takeOver(5_000);
      expect(await store.waitForChange(first, new AbortController().signal)).toBe(positionAt(5_000));
      await store.commit([remove('a'), put('c', '{}')]);
      await always(under, async (from) => {
        expect(await from.position()).toBe(positionAt(5_000) + 2);
        await expect(from.changes(first, 10)).rejects.toMatchObject(GONE);
        expect(await idsAfter(from, positionAt(5_000))).toEqual(['a', 'c']);
      });
    });

    it.each([
      [10, 0],
      [10, 1],
      [900_000, 1],
      [900_000, 5],
    ])(
      'sends a commit of %i bytes, under way for %i turns, to a reader that begins then',
      async (bytes, turns) => {
        const under = await start();
        const { store } = under;
        await commitOne(store, put('a', '{}'));
        const writes = ['b', 'c', 'd', 'e'].map((id) => put(id, `{"pad":"${'x'.repeat(bytes)}"}`));
        let isDone = false;
        const committed = store.commit(writes).then(() => {
          isDone = true;
        });
        for (let turn = 0; turn < turns; turn++) await setImmediate();
        await under.takeOver(1_000);
        const now = await store.position();
        // Its promise may settle later than others see it.
        const wasSeen = isDone || (await idsAfter(store, 0)).includes('e');
        await committed;
        const seen = await store.changes(now, 10, now).catch((error: unknown) => error);
        if (seen instanceof Error) expect(seen).toMatchObject(GONE);
        else if (!wasSeen) expect(seen).toMatchObject({ changes: [{}, {}, {}, {}] });
        expect(await idsAfter(store, 0)).toEqual(['a', 'b', 'c', 'd', 'e']);
      },
    );

    it('continues at its position when it knows of the take-over already', async () => {
      const under = await start();
      const { store } = under;
      await under.takeOver(1_000);
      await commitOne(store, put('a', '{}'));
      const position = await store.position();
      for (const again of [1_000, 900]) await under.takeOver(again);
      await commitOne(store, put('b', '{}'));
      expect(await store.position()).toBe(positionAt(1_000) + 2);
      expect(await idsAfter(store, position)).toEqual(['b']);
    });
  });
}
