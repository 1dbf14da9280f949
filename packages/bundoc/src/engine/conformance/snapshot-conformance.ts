import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openStores, type StoreUnderTest } from '../../testing/store-under-test.ts';
import { commitOne, put, ref, remove } from '../../testing/writes.ts';
import type { Position, ProjectStore } from '../port/port.ts';
import { ofOneState, type StoreSnapshot, shownPosition } from '../port/snapshot-port.ts';

const BYTES_MAX = 1_000_000;
const RUNS = 20;

/** The documents of a collection in the order of creation: their ids and values. */
type State = readonly (readonly [id: string, value: number])[];
/** Writes of one commit. A value of `undefined` deletes. */
type Batch = readonly { readonly id: string; readonly value: number | undefined }[];

const batch: fc.Arbitrary<Batch> = fc.uniqueArray(
  fc.record({
    id: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
    value: fc.option(fc.nat(99), { nil: undefined, freq: 3 }),
  }),
  { minLength: 1, maxLength: 4, selector: ({ id }) => id },
);

/** A store with the state after each of its commits. */
class Modelled {
  readonly store: ProjectStore;
  readonly states = new Map<Position, State>();
  #last: State = [];

  constructor(store: ProjectStore) {
    this.store = store;
  }

  async commit(some: Batch): Promise<void> {
    const state = new Map(this.#last);
    const writes = some.flatMap(({ id, value }) => {
      if (value === undefined) return state.delete(id) ? [remove(id)] : [];
      state.set(id, value);
      return [put(id, `{"value":${value}}`)];
    });
    if (writes.length > 0) await this.store.commit(writes);
    this.#last = [...state];
    this.states.set(await this.store.position(), this.#last);
  }
}

/** Lists a snapshot in pages. @param between runs after each page but the last. */
async function listAll(snapshot: StoreSnapshot, limit: number, between: () => Promise<void>): Promise<State> {
  const state: [string, number][] = [];
  for (let after: number | undefined = 0; after !== undefined; ) {
    const page = await snapshot.list({ after, limit, bytesMax: BYTES_MAX });
    for (const { metadata, text } of page.documents)
      state.push([metadata._id, JSON.parse(text.toString()).value]);
    after = page.next;
    if (after !== undefined) await between();
  }
  return state;
}

/** Tests of snapshots that every implementation of the storage port must pass. */
export function describeSnapshots(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} as a ProjectStore, in snapshots,`, () => {
    const { start } = openStores(make);

    it('shows in all pages of an answer the state after one commit, which includes all that were acknowledged', async () => {
      const { store } = await start();
      const model = new Modelled(store);
      let later = 0;
      await fc.assert(
        fc.asyncProperty(
          batch,
          fc.integer({ min: 1, max: 3 }),
          fc.array(batch, { maxLength: 4 }),
          async (first, limit, between) => {
            await model.commit(first);
            const acknowledged = await store.position();
            using snapshot = await store.snapshot('notes');
            const rest = [...between];
            const next = async () => {
              const some = rest.shift();
              if (some !== undefined) await model.commit(some);
            };
            const shown = await ofOneState(() => listAll(snapshot, limit, next));
            const asOf = shownPosition(snapshot);
            expect(asOf).toBeGreaterThanOrEqual(acknowledged);
            expect(shown).toEqual(model.states.get(asOf));
            expect(await snapshot.total()).toBe(shown.length);
            for (const [id] of shown) expect((await snapshot.get(id))?.metadata._id).toBe(id);
            if (asOf < (await store.position())) later++;
          },
        ),
        { numRuns: RUNS },
      );
      // Some were of a state that was superseded before their end.
      expect(later).toBeGreaterThan(0);
    });

    it('shows an earlier state while its collection is unchanged, and a changed one as it was or not at all', async () => {
      const { store } = await start();
      const model = new Modelled(store);
      await model.commit(['a', 'b', 'c'].map((id, value) => ({ id, value })));
      const asOf = await store.position();
      await store.commit([{ ...put('x', '{}'), ref: ref('x', 'other') }]);
      const none = async () => undefined;
      const shownAt = async () => {
        using snapshot = await store.snapshot('notes', { asOf });
        const shown = await ofOneState(() => listAll(snapshot, 1, none));
        expect(shownPosition(snapshot)).toBe(asOf);
        return shown;
      };
      expect(await shownAt()).toEqual(model.states.get(asOf));
      for (const write of [put('a', '{"value":9}'), remove('b'), put('d', '{"value":4}')]) {
        await commitOne(store, write);
        const shown = await shownAt().catch((error: unknown) => error);
        if (shown instanceof Error) expect(shown).toMatchObject({ code: 'snapshot_too_old' });
        else expect(shown).toEqual(model.states.get(asOf));
      }
    });

    it('refuses a position that no commit has reached', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      const asOf = (await store.position()) + 1;
      const shown = async () => {
        using snapshot = await store.snapshot('notes', { asOf });
        await snapshot.list({ after: 0, limit: 1, bytesMax: BYTES_MAX });
      };
      await expect(shown()).rejects.toMatchObject({ code: 'invalid_request' });
    });
  });
}
