import { randomBytes } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type ObjectStorage, ObjectStorageError } from '../src/object-storage/port.ts';

/** A target that is empty when the test begins. */
export interface TargetForTests extends AsyncDisposable {
  /** @param place a target of another name, which does not exist. */
  open(place?: 'absent'): ObjectStorage;
}

export async function errorOf(call: Promise<unknown>): Promise<ObjectStorageError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ObjectStorageError) return error;
  throw new Error('not refused as expected', { cause: error });
}

export async function keysOf(storage: ObjectStorage, prefix: string, after?: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of storage.list(prefix, after)) keys.push(key);
  return keys;
}

/** In the order of bytes, which is neither that of folders nor that of a locale. */
const KEYS = [
  ...['0', 'A', '_/x', 'a-', 'a.b/1', 'a.b/2', 'a/-', 'a/.x', 'a/0', 'a/0-/y', 'a/0.x', 'a/B/c/d', 'a/b'],
  ...['a/b.1', 'a0', 'ab/1', 'b'],
];

/** The guarantees of the port, for each implementation of it. */
export function conformsToPort(title: string, start: () => Promise<TargetForTests>): void {
  const opened = async (place?: 'absent') => {
    const target = await start();
    onTestFinished(() => target[Symbol.asyncDispose]());
    const storage = target.open(place);
    onTestFinished(() => storage[Symbol.asyncDispose]());
    return { target, storage };
  };

  describe(`the object storage ${title}`, () => {
    it('gives back what was put, to another process as well, and nothing for other keys', async () => {
      const { target, storage } = await opened();
      const [small, large] = [Buffer.from('sealed'), randomBytes(1_500_000)];
      await storage.put('p/one', small);
      await storage.put('p/two', large);
      await storage.put('empty', Buffer.alloc(0));
      await using other = target.open();
      const get = (key: string) => other.get(key, { maxBytes: large.length });
      expect(await get('p/one')).toEqual(small);
      expect((await get('p/two'))?.equals(large)).toBe(true);
      expect(await get('empty')).toEqual(Buffer.alloc(0));
      expect(await get('p/three')).toBeUndefined();
      expect(await get('q/one')).toBeUndefined();
    });

    it('gives ranges, which are shorter only at the end of the object', async () => {
      const { storage } = await opened();
      await storage.put('p/digits', Buffer.from('0123456789'));
      const range = async (at: number, bytes: number) =>
        (await storage.get('p/digits', { range: { at, bytes }, maxBytes: 20 }))?.toString();
      expect(await range(0, 3)).toBe('012');
      expect(await range(4, 6)).toBe('456789');
      expect(await range(0, 20)).toBe('0123456789');
      expect(await range(8, 5)).toBe('89');
      expect(await range(10, 5)).toBe('');
      expect(await storage.get('p/none', { range: { at: 0, bytes: 1 }, maxBytes: 1 })).toBeUndefined();
    });

    it('refuses to give more bytes than the caller accepts', async () => {
      const { storage } = await opened();
      await storage.put('p/digits', Buffer.from('0123456789'));
      expect((await errorOf(storage.get('p/digits', { maxBytes: 9 }))).kind).toBe('too-large');
      const range = { at: 2, bytes: 5 };
      expect((await errorOf(storage.get('p/digits', { range, maxBytes: 4 }))).kind).toBe('too-large');
      expect(await storage.get('p/digits', { range, maxBytes: 5 })).toEqual(Buffer.from('23456'));
    });

    it('accepts the same bytes again, and keeps what it has when others come', async () => {
      const { storage } = await opened();
      await storage.put('p/one', Buffer.from('first'));
      await storage.put('p/one', Buffer.from('first'));
      for (const other of ['other', 'first and more', 'f', ''])
        expect((await errorOf(storage.put('p/one', Buffer.from(other)))).kind).toBe('conflict');
      expect(await storage.get('p/one', { maxBytes: 100 })).toEqual(Buffer.from('first'));
    });

    it('lists each key once in the order of bytes, below any prefix and after any key', async () => {
      const { storage } = await opened();
      for (const key of KEYS) await storage.put(key, Buffer.from(key));
      const [some, all] = [
        ['', 'a/0'],
        ['', ...KEYS, 'a/', 'a/0/', 'zz'],
      ];
      for (const prefix of ['', 'a', 'a/', 'a/0', 'a/b', 'a.b/', 'b', 'c', 'a/B/c/d'])
        for (const after of prefix === 'a/' ? all : some) {
          const expected = KEYS.filter((key) => key.startsWith(prefix) && key > after);
          expect(await keysOf(storage, prefix, after), `${prefix} after ${after}`).toEqual(expected);
        }
      for await (const { key, bytes, modifiedAt } of storage.list('a/')) {
        expect(bytes).toBe(key.length);
        expect(Math.abs(Number(modifiedAt) - Date.now())).toBeLessThan(600_000);
      }
    });

    it('ends a list when the caller wants no more', async () => {
      const { storage } = await opened();
      for (const key of KEYS) await storage.put(key, Buffer.from(key));
      for await (const { key } of storage.list('a')) if (key === 'a/0') break;
      expect(await keysOf(storage, 'b')).toEqual(['b']);
    });

    it('deletes objects, absent ones as well', async () => {
      const { storage } = await opened();
      await storage.put('p/one', Buffer.from('1'));
      await storage.put('p/two', Buffer.from('2'));
      for (const key of ['p/one', 'p/one', 'q/none']) await storage.delete(key);
      expect(await keysOf(storage, '')).toEqual(['p/two']);
      await storage.put('p/one', Buffer.from('others'));
      expect(await storage.get('p/one', { maxBytes: 6 })).toEqual(Buffer.from('others'));
    });

    it('does not make its folder or bucket, and says that it is missing', async () => {
      const { storage } = await opened('absent');
      const calls = [
        () => storage.put('a', Buffer.from('1')),
        () => storage.get('a', { maxBytes: 1 }),
        () => storage.delete('a'),
        () => keysOf(storage, ''),
      ];
      for (const call of calls) {
        const error = await errorOf(call());
        expect(error.kind).toBe('missing');
        expect(error.message).toContain(storage.name);
      }
    });

    it.each([
      '',
      '/a',
      'a/',
      'a//b',
      '../a',
      'a/../b',
      '.',
      'a/.',
      'a b',
      'ä',
      'a\n',
      'a%2e',
      'x'.repeat(513),
    ])('treats %j as a defect of its caller, for it is no key', async (key) => {
      const { storage } = await opened();
      await expect(storage.put(key, Buffer.from('1'))).rejects.toThrow('not a key');
      await expect(storage.get(key, { maxBytes: 1 })).rejects.toThrow('not a key');
      await expect(storage.delete(key)).rejects.toThrow('not a key');
    });

    it.each(['/', 'a//', '../', 'a/../b', 'a b'])(
      'treats %j as a defect of its caller, for no key begins so',
      async (prefix) => {
        const { storage } = await opened();
        await expect(keysOf(storage, prefix)).rejects.toThrow('not a prefix');
      },
    );

    it('does nothing once it is closed', async () => {
      const { storage } = await opened();
      await storage[Symbol.asyncDispose]();
      expect((await errorOf(storage.put('a', Buffer.from('1')))).kind).toBe('unavailable');
      expect((await errorOf(keysOf(storage, ''))).kind).toBe('unavailable');
    });
  });
}
