import { afterEach, describe, expect, it } from 'vitest';
import { readDocumentBody } from '../crypto/stored-text.ts';
import type { Precondition, ProjectStore, Write, WriteResult } from './port.ts';
import { PreconditionsFailed } from './precondition.ts';

export interface StoreUnderTest {
  readonly store: ProjectStore;
  /** Opens the same storage again, after the first was closed. */
  reopen(): Promise<ProjectStore>;
}

export const ref = (id: string, collection = 'notes') => ({ collection, id });

export function put(id: string, json: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'put', ref: ref(id), content: readDocumentBody(Buffer.from(json)).content, precondition };
}

export function remove(id: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'delete', ref: ref(id), precondition };
}

/** Commits one write and gives its result. */
export async function commitOne(store: ProjectStore, write: Write): Promise<WriteResult> {
  const [result] = await store.commit([write]);
  if (result === undefined) throw new Error('a commit gave no result');
  return result;
}

/** What every implementation of the storage port must do, and every decorator of one. */
export function describeProjectStore(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} as a ProjectStore`, () => {
    const open: ProjectStore[] = [];
    const start = async (): Promise<StoreUnderTest> => {
      const made = await make();
      open.push(made.store);
      return made;
    };
    afterEach(async () => {
      for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
    });

    it('gives undefined for a document that was never written', async () => {
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

    it('keeps apart the same id in two collections', async () => {
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

    it('refuses a write whose precondition does not hold, and changes nothing', async () => {
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

    it('accepts a write whose precondition names the present revision', async () => {
      const { store } = await start();
      const { metadata } = await commitOne(store, put('a', '{"v":1}', { kind: 'absent' }));
      const anyOf = ['f'.repeat(24), String(metadata?._rev)];
      const second = await commitOne(store, put('a', '{"v":2}', { kind: 'revision', anyOf }));
      await commitOne(store, remove('a', { kind: 'revision', anyOf: [String(second.metadata?._rev)] }));
      expect(await store.get(ref('a'))).toBeUndefined();
    });

    it('answers document_not_found to the delete of an absent document', async () => {
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

    it('names every write of a batch whose precondition does not hold, with the revision that is there', async () => {
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

    it('gives the first answer to the same request under the same idempotency key, and writes nothing', async () => {
      const { store, reopen } = await start();
      const first = await store.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency });
      const again = await store.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency });
      expect(again).toEqual(first);
      await store[Symbol.asyncDispose]();
      const next = await reopen();
      open.push(next);
      expect(await next.commit([put('a', '{"v":1}', { kind: 'absent' })], { idempotency })).toEqual(first);
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

    const ids = (documents: readonly { metadata: { _id: string } }[]) =>
      documents.map(({ metadata }) => metadata._id);

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

    it('gives each document once among the changes, at its last one, and deletions too', async () => {
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

    it('tells the place of the latest commit, which those who begin there go on from', async () => {
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

    it('does not wait for a change that is there already', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{}'));
      expect(await store.waitForChange(0, never)).toBe(await store.position());
    });

    it('wakes all that wait as soon as a change can be read, a deletion as well', async () => {
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

    it('does not wake for a refused commit, nor for a repeated one', async () => {
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

    it('lets go who waits for a change when the signal says so, and when it is closed', async () => {
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

    it('gives what is stored for a backup, complete up to its position', async () => {
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
