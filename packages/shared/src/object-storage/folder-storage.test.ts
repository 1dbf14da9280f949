import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { type FileHandle, open, readFile, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { FolderStorage, type FolderStorageOptions } from './folder-storage.ts';
import { ObjectStorageError } from './port.ts';

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'folder-storage-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

function setUp(more: Partial<FolderStorageOptions> = {}) {
  const path = makeFolder();
  return { path, storage: new FolderStorage({ path, clock: systemClock, ...more }) };
}

async function kindOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ObjectStorageError) return error.kind;
  throw new Error('not refused as expected', { cause: error });
}

async function keysOf(storage: FolderStorage): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of storage.list('')) keys.push(key);
  return keys;
}

describe('a folder for objects', () => {
  const outside = makeOutside();
  it.each<[string, (path: string) => void]>([
    ['a symbolic link to a file', (path) => symlinkSync(join(outside(), 'file'), path)],
    ['a symbolic link that leads nowhere', (path) => symlinkSync('/nonexistent/file', path)],
    ['a pipe', (path) => execFileSync('mkfifo', [path])],
    ['a folder', (path) => mkdirSync(path)],
  ])('is read, written and listed past no entry that is %s', async (_kind, plant) => {
    const { path, storage } = setUp();
    await storage.put('p/one', Buffer.from('1'));
    plant(join(path, 'p/two'));
    expect(await kindOf(storage.get('p/two', { maxBytes: 100 }))).toBe('wrong');
    expect(await kindOf(storage.put('p/two', Buffer.from('2')))).toBe('wrong');
    expect(await keysOf(storage)).toEqual(['p/one']);
  });

  it('follows no symbolic link in place of a folder', async () => {
    const { path, storage } = setUp();
    symlinkSync(outside(), join(path, 'p'));
    expect(await kindOf(storage.get('p/file', { maxBytes: 100 }))).toBe('wrong');
    expect(await kindOf(storage.put('p/new', Buffer.from('2')))).toBe('wrong');
    expect(await kindOf(storage.put('p/q/new', Buffer.from('2')))).toBe('wrong');
    expect(await kindOf(storage.delete('p/file'))).toBe('wrong');
    expect(await keysOf(storage)).toEqual([]);
    expect(readdirSync(outside())).toEqual(['file']);
  });

  it('reads no more of a huge file than the caller accepts', async () => {
    const { path, storage } = setUp();
    await using file = await open(join(path, 'huge'), 'w');
    await file.truncate(2 ** 40);
    expect(await kindOf(storage.get('huge', { maxBytes: 1_000 }))).toBe('too-large');
    expect(await kindOf(storage.put('huge', Buffer.alloc(10)))).toBe('conflict');
    const range = { at: 2 ** 39, bytes: 4 };
    expect(await storage.get('huge', { range, maxBytes: 4 })).toEqual(Buffer.alloc(4));
  });

  it('leaves out files whose names are no keys', async () => {
    const { path, storage } = setUp();
    for (const name of ['lost+found', '~0123456789abcdef', 'a b', 'ok']) writeFileSync(join(path, name), '1');
    expect(await keysOf(storage)).toEqual(['ok']);
  });

  it('keeps the bytes of one of many writers, and tells all others', async () => {
    const { path } = setUp();
    const writers = Array.from({ length: 12 }, (_, at) => Buffer.from(`writer ${at}`));
    const results = await Promise.allSettled(
      writers.map((body) => new FolderStorage({ path, clock: systemClock }).put('p/q/one', body)),
    );
    const kept = writers.filter((_, at) => results[at]?.status === 'fulfilled');
    expect(kept).toHaveLength(1);
    expect(await readFile(join(path, 'p/q/one'))).toEqual(kept[0]);
    expect(readdirSync(path)).toEqual(['p']);
  });

  it('works without hard links, and still overwrites nothing', async () => {
    const link = () => Promise.reject(Object.assign(new Error('no links'), { code: 'EPERM' }));
    const { path, storage } = setUp({ link });
    await storage.put('p/one', Buffer.from('first'));
    await storage.put('p/one', Buffer.from('first'));
    expect(await kindOf(storage.put('p/one', Buffer.from('other')))).toBe('conflict');
    expect(await readFile(join(path, 'p/one'), 'utf8')).toBe('first');
    expect(readdirSync(path)).toEqual(['p']);
  });

  it('lists folders that have more names than it holds at a time', async () => {
    const { path, storage } = setUp({ pageNames: 3 });
    mkdirSync(join(path, 'p'));
    const keys = Array.from({ length: 50 }, (_, at) => `p/${String((at * 37) % 50).padStart(4, '0')}`);
    for (const key of keys) writeFileSync(join(path, key), '1');
    expect(await keysOf(storage)).toEqual(keys.sort());
  });

  it('removes what a killed process left in it, but nothing that may still be written', async () => {
    const clock = new FakeClock();
    const { path, storage } = setUp({ clock });
    const ageS = async (name: string, seconds: number) => {
      writeFileSync(join(path, name), 'partial');
      await utimes(join(path, name), clock.now() / 1_000 - seconds, clock.now() / 1_000 - seconds);
    };
    await ageS('~old', 86_401);
    await ageS('~new', 86_000);
    await storage.put('one', Buffer.from('1'));
    expect(readdirSync(path).sort()).toEqual(['one', '~new']);
  });

  it('has synced the object, its folder and each folder above before a put resolves', async () => {
    const { path, storage } = setUp();
    const synced = await inodesSynced(path);
    await storage.put('p/q/one', Buffer.from('1'));
    expect(synced.has(statSync(join(path, 'p/q/one')).ino)).toBe(true);
    for (const folder of ['', 'p', 'p/q']) expect(synced.has(statSync(join(path, folder)).ino)).toBe(true);
    synced.clear();
    await storage.put('p/q/one', Buffer.from('1'));
    expect(synced.has(statSync(join(path, 'p/q')).ino)).toBe(true);
  });

  it('leaves nothing of a put that fails', async () => {
    const { path, storage } = setUp();
    await storage.put('one', Buffer.from('1'));
    const prototype = await handlePrototype(path);
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    vi.spyOn(prototype, 'sync').mockRejectedValueOnce(full);
    await expect(storage.put('two', Buffer.from('2'))).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'ENOSPC',
    });
    expect(readdirSync(path)).toEqual(['one']);
    await storage.put('two', Buffer.from('2'));
    expect(await keysOf(storage)).toEqual(['one', 'two']);
  });
});

/** @returns the path of a folder with one file. */
function makeOutside(): () => string {
  let path: string | undefined;
  return () => {
    if (path === undefined) {
      path = makeFolder();
      onTestFinished(() => {
        path = undefined;
      });
      writeFileSync(join(path, 'file'), 'not for objects');
    }
    return path;
  };
}

async function handlePrototype(path: string): Promise<FileHandle> {
  await using handle = await open(path);
  return Object.getPrototypeOf(handle) as FileHandle;
}

/** The inodes that were synced, collected from now on. */
async function inodesSynced(path: string): Promise<Set<number>> {
  const prototype = await handlePrototype(path);
  const { sync } = prototype;
  const synced = new Set<number>();
  vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
    synced.add((await this.stat()).ino);
    await sync.call(this);
  });
  return synced;
}
