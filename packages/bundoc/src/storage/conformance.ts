import { afterEach, describe, expect, it } from 'vitest';
import { readDocumentBody } from '../cipher/stored-text.ts';
import type { Precondition, ProjectStore, Write } from './port.ts';

export interface StoreUnderTest {
  readonly store: ProjectStore;
  /** Opens the same storage anew, after the first was closed. */
  reopen(): Promise<ProjectStore>;
}

export const ref = (id: string, collection = 'notes') => ({ collection, id });

export function put(id: string, json: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'put', ref: ref(id), content: readDocumentBody(Buffer.from(json)).content, precondition };
}

export function remove(id: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'delete', ref: ref(id), precondition };
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
      const { created, metadata } = await store.commit(put('a', '{ "n": 12345678901234567890, "m":1.10 }'));
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
      await store.commit(put('a', '{}'));
      expect(Object.keys(JSON.parse(String((await store.get(ref('a')))?.text)))).toHaveLength(5);
    });

    it('keeps apart the same id in two collections', async () => {
      const { store } = await start();
      await store.commit(put('a', '{"v":1}'));
      expect(await store.get(ref('a', 'other'))).toBeUndefined();
    });

    it('gives every write its own revision and keeps the time of creation', async () => {
      const { store } = await start();
      const first = await store.commit(put('a', '{"v":1}'));
      const second = await store.commit(put('a', '{"v":1}'));
      expect(second.created).toBe(false);
      expect(second.metadata?._rev).not.toBe(first.metadata?._rev);
      expect(second.metadata?._created).toBe(first.metadata?._created);
    });

    it('never gives the revision of a deleted document to its successor', async () => {
      const { store } = await start();
      const first = await store.commit(put('a', '{"v":1}'));
      await store.commit(remove('a'));
      expect(await store.get(ref('a'))).toBeUndefined();
      const second = await store.commit(put('a', '{"v":1}'));
      expect(second.created).toBe(true);
      expect(second.metadata?._rev).not.toBe(first.metadata?._rev);
    });

    it('refuses a write whose precondition does not hold, and changes nothing', async () => {
      const { store } = await start();
      const refused = { code: 'precondition_failed' };
      const stale: Precondition = { kind: 'revision', anyOf: ['0'.repeat(24)] };
      for (const precondition of [{ kind: 'present' } as const, stale]) {
        await expect(store.commit(put('a', '{"v":2}', precondition))).rejects.toMatchObject(refused);
        await expect(store.commit(remove('a', precondition))).rejects.toMatchObject(refused);
      }
      expect(await store.get(ref('a'))).toBeUndefined();
      await store.commit(put('a', '{"v":1}'));
      const before = await store.get(ref('a'));
      for (const precondition of [{ kind: 'absent' } as const, stale]) {
        await expect(store.commit(put('a', '{"v":2}', precondition))).rejects.toMatchObject(refused);
        await expect(store.commit(remove('a', precondition))).rejects.toMatchObject(refused);
      }
      expect((await store.get(ref('a')))?.text).toEqual(before?.text);
    });

    it('accepts a write whose precondition names the present revision', async () => {
      const { store } = await start();
      const { metadata } = await store.commit(put('a', '{"v":1}', { kind: 'absent' }));
      const anyOf = ['f'.repeat(24), String(metadata?._rev)];
      const second = await store.commit(put('a', '{"v":2}', { kind: 'revision', anyOf }));
      await store.commit(remove('a', { kind: 'revision', anyOf: [String(second.metadata?._rev)] }));
      expect(await store.get(ref('a'))).toBeUndefined();
    });

    it('answers document_not_found to the delete of an absent document', async () => {
      const { store } = await start();
      await expect(store.commit(remove('a'))).rejects.toMatchObject({ code: 'document_not_found' });
    });

    it('lets exactly one of many writers win a compare-and-set', async () => {
      const { store } = await start();
      const { metadata } = await store.commit(put('a', '{"v":0}'));
      const precondition: Precondition = { kind: 'revision', anyOf: [String(metadata?._rev)] };
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => store.commit(put('a', `{"v":${n}}`, precondition))),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('lets exactly one of many creators win', async () => {
      const { store } = await start();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => store.commit(put('a', `{"v":${n}}`, { kind: 'absent' }))),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('has all acknowledged writes after it was closed and opened again', async () => {
      const { store, reopen } = await start();
      const texts = new Map<string, string>();
      for (let n = 0; n < 20; n++) {
        await store.commit(put(`doc-${n}`, `{"v":${n}}`));
        texts.set(`doc-${n}`, String((await store.get(ref(`doc-${n}`)))?.text));
      }
      await store.commit(remove('doc-7'));
      await store[Symbol.asyncDispose]();
      const again = await reopen();
      open.push(again);
      for (const [id, text] of texts) {
        expect((await again.get(ref(id)))?.text.toString()).toBe(id === 'doc-7' ? undefined : text);
      }
    });
  });
}
