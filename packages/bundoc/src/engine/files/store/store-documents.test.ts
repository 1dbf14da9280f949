import { describe, expect, it } from 'vitest';
import type { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { started } from '../../../testing/started-store.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import { createSealedCache } from '../documents/sealed-cache.ts';

describe('the cache', () => {
  it('has the latest bytes of a document, and no bytes of a deleted one', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const name = project.cipher.fileName(ref('a'));
    for (const v of [1, 2]) {
      await commitOne(store, put('a', `{"v":${v}}`));
      // Written, so that no pending write answers in its place.
      await store.checkpoint();
      expect((await store.get(ref('a')))?.text.toString()).toContain(`"v":${v}`);
    }
    expect(cache.get('p', name)).toBeDefined();
    await commitOne(store, remove('a'));
    expect(cache.get('p', name)).toBeUndefined();
  });

  it('can drop a document while a backup still uses its sealed bytes', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const text = 'x'.repeat(100_000);
    await commitOne(store, put('a', `{"v":"${text}"}`));
    await store.checkpoint();
    await store.get(ref('a'));
    const name = project.cipher.fileName(ref('a'));
    expect(cache.get('p', name)).toBeDefined();
    const { changes } = await store.sealedChanges(0, { limit: 10, bytesMax: 1_000_000 });
    cache.deleteAll('p');
    expect(project.cipher.openDocument(name, changes[0]?.sealed as Buffer).toString()).toContain(text);
  });

  it('keeps a document that is read before its file is written, but none that is only written', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const [read, written] = ['a', 'b'].map((id) => project.cipher.fileName(ref(id)));
    await store.commit([put('a', '{"v":1}'), put('b', '{"v":1}')]);
    // In the turn of its commit, none of its files can have been written.
    expect(store.getSync(ref('a'))?.text.toString()).toContain('"v":1');
    const kept = cache.get('p', read as string);
    expect(kept?.buffer.byteLength).toBe(kept?.length);
    expect(cache.get('p', written as string)).toBeUndefined();
    await commitOne(store, put('a', '{"v":2}'));
    expect(store.getSync(ref('a'))?.text.toString()).toContain('"v":2');
    await store.checkpoint();
    expect((await store.get(ref('a')))?.text.toString()).toContain('"v":2');
  });

  it('a cache with older bytes than the disk does not prevent the reading of a document', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const name = project.cipher.fileName(ref('a'));
    await commitOne(store, put('a', '{"v":1}'));
    await store.get(ref('a'));
    const older = cache.get('p', name) as Buffer;
    await commitOne(store, put('a', '{"v":2}'));
    for (const step of ['before', 'after']) {
      cache.set('p', name, older);
      expect((await store.get(ref('a')))?.text.toString(), step).toContain('"v":2');
      await store.checkpoint();
    }
  });
});

describe('a document file', () => {
  const pathOf = (project: ProjectInFiles, id: string) => {
    const name = project.cipher.fileName(ref(id));
    return `/p/docs/${name}`;
  };
  const checkpointed = async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{"v":"old"}'));
    await store.checkpoint();
    const old = Buffer.from(disk.files().get(pathOf(project, 'a'))!);
    await commitOne(store, put('a', '{"v":"new"}'));
    await commitOne(store, put('b', '{"v":"fine"}'));
    await store.checkpoint();
    return { project, disk, store, old };
  };

  it.each([
    ['changed', (bytes: Buffer) => Buffer.from(bytes.map((byte, at) => (at === 30 ? byte ^ 1 : byte)))],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['missing', () => undefined],
  ])('%s is an integrity error of that document alone', async (_name, change) => {
    const { project, disk, store } = await checkpointed();
    const path = pathOf(project, 'a');
    disk.tamper(path, change(disk.files().get(path)!));
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    expect(project.damaged).toEqual([project.cipher.fileName(ref('a'))]);
    expect((await store.get(ref('b')))?.text.toString()).toContain('fine');
  });

  it('a damaged document file does not prevent the listing of other documents', async () => {
    const { project, disk, store } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), Buffer.from('x'));
    const page = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 });
    expect(page.documents.map(({ metadata }) => metadata._id)).toEqual(['b']);
    expect(page.unreadable).toEqual(['a']);
  });

  it('a document file of an older revision that is put back is an integrity error', async () => {
    const { project, disk, store, old } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), old);
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('a damaged document file can be replaced and deleted', async () => {
    const { project, disk, store } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), Buffer.from('x'));
    disk.tamper(pathOf(project, 'b'), Buffer.from('x'));
    await commitOne(store, put('a', '{"v":"newer"}'));
    expect((await store.get(ref('a')))?.text.toString()).toContain('newer');
    await commitOne(store, remove('b'));
    expect(await store.get(ref('b'))).toBeUndefined();
  });
});
