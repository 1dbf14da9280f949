import { randomUUID } from 'node:crypto';
import { defined } from '@bundoc/shared/contract/defined';
import { describe, expect, it } from 'vitest';
import { storageDraft, storageIn } from '../../records/storage-record.ts';
import type { KmsStore } from '../port.ts';
import { chainKey, draft, edited, key, LATER, stored, TIME } from './data.ts';
import { type MakePlace, type StorePlace, withStore } from './place.ts';

/** The contract of {@link KmsStore} for storages and their keys. Run it inside a test file. */
export function storageConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore for storages`, () => {
    let place: StorePlace;
    let store: KmsStore;
    const storage = randomUUID();
    const other = randomUUID();

    withStore(makePlace, (opened, at) => {
      store = opened;
      place = at;
    });

    const advance = (id: string, generation: string, seq: number | undefined, unreleasedSince?: number) =>
      store.appendAudit(
        [
          storageDraft({ caller: {}, time: TIME }, 'storage.advance', {
            id,
            generation,
            takenOverMs: 0,
          }),
        ],
        [{ storage: { id, seq, unreleasedSince } }],
      );
    const released = (name: string, to: string | undefined, more: object = {}) =>
      draft('key.export', {
        severity: 'CRITICAL',
        key: name,
        version: 1,
        detail: { key_id: 'x', ...defined({ storage: to }), lease_ttl_ms: 1 },
        ...more,
      });
    const generationOf = async (id: string) => {
      const record = await store.storageRecord(id);
      return record && storageIn(chainKey, id, record)?.generation;
    };

    it('finds no storage without a record', async () => {
      expect(await store.storageRecord(storage)).toBeUndefined();
      expect(await advance(storage, randomUUID(), 7)).toEqual(['storage_changed']);
      expect((await store.auditHead()).seq).toBe(1);
    });

    it('returns the latest record of each storage, even after a restart, and no other records', async () => {
      const [first, second, theirs] = [randomUUID(), randomUUID(), randomUUID()];
      expect(await advance(storage, first, undefined)).toMatchObject([{ seq: 2 }]);
      expect(await advance(storage, second, 2)).toMatchObject([{ seq: 3 }]);
      expect(await advance(other, theirs, undefined)).toMatchObject([{ seq: 4 }]);
      await store.appendAudit([
        draft('storage.something', { detail: { storage, generation: first, taken_over_ms: 9 } }),
        released('a-dek', storage),
      ]);
      await store.close();
      await using again = await place.open();
      store = again;
      expect(await store.storageRecord(storage)).toMatchObject({ seq: 3 });
      expect(await generationOf(storage)).toBe(second);
      expect(await generationOf(other)).toBe(theirs);
    });

    it('lists each storage that has a record once, page by page', async () => {
      expect(await store.listStorages({ limit: 1 })).toEqual({ items: [], more: false });
      const ids = Array.from({ length: 5 }, () => randomUUID()).sort();
      for (const id of ids.toReversed()) await advance(id, randomUUID(), undefined);
      const [first] = ids as [string];
      const { seq } = (await store.storageRecord(first)) as { seq: number };
      await advance(first, randomUUID(), seq);
      await store.appendAudit([
        draft('storage.something', { detail: { storage, generation: other, taken_over_ms: 9 } }),
        released('a-dek', storage),
      ]);
      expect(await store.listStorages({ limit: 2 })).toEqual({ items: ids.slice(0, 2), more: true });
      const rest = await store.listStorages({ after: ids[1], limit: 3 });
      expect(rest).toEqual({ items: ids.slice(2), more: false });
      expect(await store.listStorages({ after: ids[4], limit: 3 })).toEqual({ items: [], more: false });
    });

    it('lets exactly one of several writers advance a storage, even within one batch', async () => {
      await advance(storage, randomUUID(), undefined);
      const second = await place.open();
      await second.unlock(chainKey);
      try {
        const tries = Array.from({ length: 12 }, () => randomUUID());
        const of = (generation: string) =>
          storageDraft({ caller: {}, time: TIME }, 'storage.advance', {
            id: storage,
            generation,
            takenOverMs: 0,
          });
        const condition = { storage: { id: storage, seq: 2 } };
        const results = await Promise.all([
          store.appendAudit(tries.slice(0, 4).map(of), [condition, condition, condition, condition]),
          ...tries
            .slice(4)
            .map((one, at) => (at % 2 === 0 ? store : second).appendAudit([of(one)], [condition])),
        ]);
        const won = results.flat().filter((result) => typeof result !== 'string');
        expect(won).toHaveLength(1);
        const at = results.flat().findIndex((result) => typeof result !== 'string');
        expect(await generationOf(storage)).toBe(tries[at]);
      } finally {
        await second.close();
      }
    });

    it('rejects a record or a change of a key whose storage has advanced', async () => {
      await advance(storage, randomUUID(), undefined);
      const made = key('a-dek', { holder: storage });
      await store.insertKey(made);
      const mark = { id: storage, seq: 2 };
      expect(await store.appendAudit([draft('release')], [{ storage: mark }])).toMatchObject([{ seq: 4 }]);
      expect(await store.updateKey({ ...edited(made, {}), storages: [mark] })).toMatchObject({ seq: 5 });
      await advance(storage, randomUUID(), 2);
      const before = await store.auditHead();
      const next = edited(edited(made, {}), { holder: other });
      expect(await store.appendAudit([draft('release')], [{ storage: mark }])).toEqual(['storage_changed']);
      expect(await store.updateKey({ ...next, storages: [mark] })).toBeUndefined();
      expect(await store.auditHead()).toEqual(before);
      expect(await store.updateKey({ ...next, storages: [{ id: storage, seq: before.seq }] })).toBeDefined();
    });

    it('stores no new key for a storage that has advanced', async () => {
      await advance(storage, randomUUID(), undefined);
      const mark = { id: storage, seq: 2 };
      expect(
        await store.insertKey({ ...key('a-dek', { holder: storage }), storages: [mark] }),
      ).toBeUndefined();
      await advance(storage, randomUUID(), 2);
      const before = await store.auditHead();
      expect(await store.insertKey({ ...key('b-dek', { holder: storage }), storages: [mark] })).toBe(
        'outdated',
      );
      expect(await store.findKey('b-dek', 'all')).toBeUndefined();
      expect(await store.auditHead()).toEqual(before);
    });

    it('changes no key that was released after a record, and takes over no storage with such a release', async () => {
      await advance(storage, randomUUID(), undefined);
      const made = key('a-dek', { holder: storage });
      await store.insertKey(made);
      await store.appendAudit([
        released('b-dek', other),
        released('a-dek', storage, { outcome: 'refused' }),
        released('a-dek', undefined),
      ]);
      const next = edited(made, { holder: other });
      expect(await store.updateKey({ ...next, unreleasedSince: 5 })).toBeUndefined();
      expect(await advance(storage, randomUUID(), 2, 2)).toMatchObject([{ seq: 7 }]);
      expect(await store.updateKey({ ...next, unreleasedSince: 6 })).toMatchObject({ seq: 8 });
      await store.appendAudit([released('c-dek', storage)]);
      expect(await advance(storage, randomUUID(), 7, 8)).toEqual(['storage_changed']);
      expect(await advance(storage, randomUUID(), 7, 9)).toMatchObject([{ seq: 10 }]);
    });

    it('lists the releases to a storage since a time, newest first', async () => {
      await store.appendAudit([
        released('old-dek', storage, { time: '2025-12-31T23:59:59.999Z' }),
        released('a-dek', storage),
        released('b-dek', other),
        released('c-dek', storage, { outcome: 'refused' }),
        released('d-dek', undefined),
        released('e-dek', storage, { time: LATER }),
      ]);
      const first = await store.listStorageExports(storage, TIME, { limit: 1 });
      expect(first.items.map((record) => record.key)).toEqual(['e-dek']);
      const rest = await store.listStorageExports(storage, TIME, { before: first.next, limit: 9 });
      expect(rest.items.map((record) => record.key)).toEqual(['a-dek']);
      expect(rest.next).toBeUndefined();
    });

    it('lists the keys that a storage wants shredded, by name, with their authentication data', async () => {
      const intendedAt = TIME;
      const keys = [
        key('d-dek', { holder: storage, intendedAt, state: 'pending_deletion' }),
        key('a-dek', { holder: storage, intendedAt, state: 'destroyed' }),
        key('b-dek', { holder: storage }),
        key('c-dek', { holder: other, intendedAt, state: 'pending_deletion' }),
        key('e-dek', { holder: null, intendedAt, state: 'destroyed' }),
        key('f-dek', { holder: storage, intendedAt, state: 'pending_deletion' }),
      ];
      for (const one of keys) await store.insertKey(one);
      const [d, a] = keys;
      const first = await store.listDeletions(storage, { limit: 2 });
      expect(first).toMatchObject({ items: [a && stored(a), d && stored(d)], more: true });
      const rest = await store.listDeletions(storage, { after: 'd-dek', limit: 2 });
      expect(rest.items.map((one) => one.name)).toEqual(['f-dek']);
      expect(rest.more).toBe(false);
      expect(await store.countDeletions()).toBe(4);
    });

    it('does not list a key that its holder wants shredded as due for destruction', async () => {
      await store.insertKey(key('a-dek', { holder: storage, intendedAt: TIME, state: 'pending_deletion' }));
      expect((await store.listDueKeys('2999-01-01T00:00:00.000Z', { limit: 9 })).items).toEqual([]);
    });
  });
}
