import { describe, expect, it } from 'vitest';
import { openStores, type StoreUnderTest } from '../../testing/store-under-test.ts';
import { commitOne, put, ref, remove } from '../../testing/writes.ts';
import type { Precondition } from '../port/port.ts';
import { PreconditionsFailed } from '../port/precondition.ts';
import { describeFeeds } from './feed-conformance.ts';
import { describeSnapshots } from './snapshot-conformance.ts';

/** Tests that every implementation and decorator of the storage port must pass. */
export function describeProjectStore(name: string, make: () => Promise<StoreUnderTest>): void {
  describeFeeds(name, make);
  describeSnapshots(name, make);

  describe(`${name} as a ProjectStore`, () => {
    const { start, open } = openStores(make);

    it('returns undefined for a document that was never written', async () => {
      const { store } = await start();
      expect(await store.get(ref('none'))).toBeUndefined();
    });

    it('reads its own acknowledged write, as the exact bytes with the metadata in front', async () => {
      const { store } = await start();
      const { created, metadata } = await commitOne(
        store,
        put('a', '{ "n": 12345678901234567890, "m":1.10 }'),
      );
      expect(created).toBe(true);
      const read = await store.get(ref('a'));
      expect(read?.metadata).toEqual(metadata);
      expect(read?.text.toString()).toBe(
        `{"_id":"a","_collection":"notes","_rev":"${metadata?._rev}","_created":"${metadata?._created}",` +
          `"_updated":"${metadata?._updated}", "n": 12345678901234567890, "m":1.10 }`,
      );
    });

    it('keeps an empty document an object', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      expect(Object.keys(JSON.parse(String((await store.get(ref('a')))?.text)))).toHaveLength(5);
    });

    it('keeps documents with the same id in two collections apart', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{"v":1}'));
      expect(await store.get(ref('a', 'other'))).toBeUndefined();
    });

    it('gives every write its own revision and keeps the time of creation', async () => {
      const { store } = await start();
      const first = await commitOne(store, put('a', '{"v":1}'));
      const second = await commitOne(store, put('a', '{"v":1}'));
      expect(second.created).toBe(false);
      expect(second.metadata?._rev).not.toBe(first.metadata?._rev);
      expect(second.metadata?._created).toBe(first.metadata?._created);
    });

    it('never gives the revision of a deleted document to its successor', async () => {
      const { store } = await start();
      const first = await commitOne(store, put('a', '{"v":1}'));
      await commitOne(store, remove('a'));
      expect(await store.get(ref('a'))).toBeUndefined();
      const second = await commitOne(store, put('a', '{"v":1}'));
      expect(second.created).toBe(true);
      expect(second.metadata?._rev).not.toBe(first.metadata?._rev);
    });

    it('refuses a write whose precondition fails, and changes nothing', async () => {
      const { store } = await start();
      const refused = { code: 'precondition_failed' };
      const stale: Precondition = { kind: 'revision', anyOf: ['0'.repeat(24)] };
      for (const precondition of [{ kind: 'present' } as const, stale]) {
        await expect(commitOne(store, put('a', '{"v":2}', precondition))).rejects.toMatchObject(refused);
        await expect(commitOne(store, remove('a', precondition))).rejects.toMatchObject(refused);
      }
      expect(await store.get(ref('a'))).toBeUndefined();
      await commitOne(store, put('a', '{"v":1}'));
      const before = await store.get(ref('a'));
      for (const precondition of [{ kind: 'absent' } as const, stale]) {
        await expect(commitOne(store, put('a', '{"v":2}', precondition))).rejects.toMatchObject(refused);
        await expect(commitOne(store, remove('a', precondition))).rejects.toMatchObject(refused);
      }
      expect((await store.get(ref('a')))?.text).toEqual(before?.text);
    });

    it('accepts a write whose precondition names the current revision', async () => {
      const { store } = await start();
      const { metadata } = await commitOne(store, put('a', '{"v":1}', { kind: 'absent' }));
      const anyOf = ['f'.repeat(24), String(metadata?._rev)];
      const second = await commitOne(store, put('a', '{"v":2}', { kind: 'revision', anyOf }));
      await commitOne(store, remove('a', { kind: 'revision', anyOf: [String(second.metadata?._rev)] }));
      expect(await store.get(ref('a'))).toBeUndefined();
    });

    it('answers document_not_found when an absent document is deleted', async () => {
      const { store } = await start();
      await expect(commitOne(store, remove('a'))).rejects.toMatchObject({ code: 'document_not_found' });
    });

    it('lets exactly one of many writers win a compare-and-set', async () => {
      const { store } = await start();
      const { metadata } = await commitOne(store, put('a', '{"v":0}'));
      const precondition: Precondition = { kind: 'revision', anyOf: [String(metadata?._rev)] };
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => commitOne(store, put('a', `{"v":${n}}`, precondition))),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('lets exactly one of many creators win', async () => {
      const { store } = await start();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => commitOne(store, put('a', `{"v":${n}}`, { kind: 'absent' }))),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('has all acknowledged writes after it was closed and opened again', async () => {
      const { store, reopen } = await start();
      const texts = new Map<string, string>();
      for (let n = 0; n < 20; n++) {
        await commitOne(store, put(`doc-${n}`, `{"v":${n}}`));
        texts.set(`doc-${n}`, String((await store.get(ref(`doc-${n}`)))?.text));
      }
      await commitOne(store, remove('doc-7'));
      await store[Symbol.asyncDispose]();
      const again = await reopen();
      open.push(again);
      for (const [id, text] of texts) {
        expect((await again.get(ref(id)))?.text.toString()).toBe(id === 'doc-7' ? undefined : text);
      }
    });

    it('commits all writes of a batch or none', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{"v":1}'));
      const batch = [
        put('b', '{"v":2}'),
        put('a', '{"v":3}'),
        put('a', '{"v":4}', { kind: 'absent' }),
        put('c', '{}'),
      ];
      await expect(store.commit(batch)).rejects.toMatchObject({ code: 'precondition_failed' });
      expect((await store.get(ref('a')))?.text.toString()).toContain('"v":1');
      expect(await store.get(ref('b'))).toBeUndefined();
      const results = await store.commit([put('b', '{"v":2}'), put('a', '{"v":3}'), remove('b')]);
      expect(results.map(({ created }) => created)).toEqual([true, false, false]);
      expect((await store.get(ref('a')))?.text.toString()).toContain('"v":3');
      expect(await store.get(ref('b'))).toBeUndefined();
    });

    it('lets the writes of a batch see those before them', async () => {
      const { store } = await start();
      await store.commit([put('a', '{"v":1}', { kind: 'absent' }), put('a', '{"v":2}', { kind: 'present' })]);
      await expect(store.commit([remove('a'), remove('a')])).rejects.toMatchObject({
        code: 'document_not_found',
      });
      expect((await store.get(ref('a')))?.text.toString()).toContain('"v":2');
    });

    it('lists every write of a batch whose precondition fails, with the current revision', async () => {
      const { store } = await start();
      const { metadata } = await commitOne(store, put('a', '{"v":1}'));
      const gone = await commitOne(store, put('gone', '{}'));
      await commitOne(store, remove('gone'));
      const batch = [
        put('b', '{}', { kind: 'absent' }),
        put('a', '{}', { kind: 'absent' }),
        put('c', '{}'),
        remove('a', { kind: 'revision', anyOf: ['0'.repeat(24)] }),
        remove('none', { kind: 'present' }),
        put('gone', '{}', { kind: 'revision', anyOf: [String(gone.metadata?._rev)] }),
        put('a', '{}', { kind: 'revision', anyOf: [String(metadata?._rev)] }),
      ];
      const error = await store.commit(batch).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(PreconditionsFailed);
      expect(error).toMatchObject({ code: 'precondition_failed' });
      expect((error as PreconditionsFailed).failed).toEqual([
        { index: 1, rev: metadata?._rev },
        { index: 3, rev: metadata?._rev },
        { index: 4, rev: undefined },
        { index: 5, rev: undefined },
      ]);
      expect(await store.get(ref('b'))).toBeUndefined();
    });

    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };

    it('repeats the first answer for the same request under the same idempotency key, and writes nothing', async () => {
      const { store, reopen } = await start();
      const first = await store.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency });
      const again = await store.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency });
      expect(again).toEqual(first);
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      expect(await next.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency })).toEqual(first);
    });

    it('repeats a note instead of the results, also of a commit without writes, even after a restart', async () => {
      const { store, reopen } = await start();
      const noted = (note: string, n: number) => ({
        idempotency: { key: `${n}`.repeat(32), request: 'b'.repeat(32), note },
      });
      expect(await store.commit([put('a', '{}')], noted('first', 1))).toMatchObject([{ created: true }]);
      const before = await store.position();
      expect(await store.commit([], noted('nothing', 2))).toEqual([]);
      expect(await store.commit([put('b', '{}')], noted('other', 1))).toMatchObject([{ note: 'first' }]);
      expect(await store.commit([put('b', '{}')], noted('other', 2))).toMatchObject([{ note: 'nothing' }]);
      expect(await store.position()).toBe(before);
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      for (const [n, note] of [
        [1, 'first'],
        [2, 'nothing'],
      ] as const)
        expect(await next.commit([remove('a')], noted('other', n))).toMatchObject([{ note }]);
      expect(await next.get(ref('b'))).toBeUndefined();
    });

    it('writes once for many concurrent requests under one idempotency key', async () => {
      const { store } = await start();
      const all = await Promise.all(
        Array.from({ length: 20 }, () =>
          store.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency }),
        ),
      );
      expect(new Set(all.map((results) => results[0]?.metadata?._rev)).size).toBe(1);
    });

    it('refuses another request under a used idempotency key, and remembers no refused one', async () => {
      const { store } = await start();
      const other = { ...idempotency, request: 'c'.repeat(32) };
      const absent = [put('a', '{}', { kind: 'present' })];
      await expect(store.commit(absent, { idempotency })).rejects.toMatchObject({
        code: 'precondition_failed',
      });
      await store.commit([put('a', '{}')], { idempotency });
      await expect(store.commit([put('b', '{}')], { idempotency: other })).rejects.toMatchObject({
        code: 'idempotency_mismatch',
      });
      expect(await store.get(ref('b'))).toBeUndefined();
    });
  });
}
