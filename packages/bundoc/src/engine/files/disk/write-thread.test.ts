import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { afterAll, describe, expect, it } from 'vitest';
import { WriteThread } from './write-thread.ts';

const directory = mkdtempSync(join(tmpdir(), 'bundoc-write-thread-'));
afterAll(() => rmSync(directory, { recursive: true }));

const folder = DataFolder.open(directory);
const newThread = () => new WriteThread({ folder: folder.shared, fileMode: 0o600, directoryMode: 0o700 });
const file = (path: string, content: Buffer | undefined) => ({ path, content });

describe('WriteThread', () => {
  it("writes each file's own content of any size, whatever else is written at the same time", async () => {
    const thread = newThread();
    const contents = Array.from({ length: 200 }, (_, at) => Buffer.alloc((at * 37) % 3_000, at));
    await Promise.all(contents.map((content, at) => thread.write([file(`many-${at}`, content)])));
    for (const [at, content] of contents.entries()) {
      const path = join(directory, `many-${at}`);
      expect(readFileSync(path).equals(content)).toBe(true);
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
  });

  it('creates the folder of a file, accessible to its owner only', async () => {
    const thread = newThread();
    await Promise.all(['3f/1', '3f/2'].map((name) => thread.write([file(name, Buffer.from(name))])));
    expect(readFileSync(join(directory, '3f/2'), 'utf8')).toBe('3f/2');
    expect(statSync(join(directory, '3f')).mode & 0o777).toBe(0o700);
  });

  it('leaves nothing of a longer content, and removes files', async () => {
    const thread = newThread();
    await thread.write([file('long', Buffer.alloc(3_000, 1)), file('gone', Buffer.from('x'))]);
    const outcomes = await thread.write([
      file('long', Buffer.from('short')),
      file('gone', undefined),
      file('never-there', undefined),
    ]);
    expect(outcomes).toEqual([undefined, undefined, undefined]);
    expect(readFileSync(join(directory, 'long'), 'utf8')).toBe('short');
    expect(existsSync(join(directory, 'gone'))).toBe(false);
  });

  it('leaves the given buffers unchanged', async () => {
    const content = Buffer.from('sealed bytes that a cache keeps as well');
    await newThread().write([file('kept', content)]);
    expect(content.toString()).toBe('sealed bytes that a cache keeps as well');
  });

  it('reports the error of the file that could not be written, and writes the others', async () => {
    const thread = newThread();
    const [others, outcomes] = await Promise.all([
      thread.write([file('before', Buffer.from('1'))]),
      thread.write([file('no-such-folder/nor-this/x', Buffer.from('2')), file('after', Buffer.from('3'))]),
    ]);
    expect(others).toEqual([undefined]);
    expect(outcomes).toEqual([expect.objectContaining({ code: 'ENOENT' }), undefined]);
    expect(readFileSync(join(directory, 'after'), 'utf8')).toBe('3');
  });

  it('fails the requests of a thread that ends, and writes again with another thread', async () => {
    const thread = newThread();
    await thread.write([file('first', Buffer.from('1'))]);
    const many = Array.from({ length: 5_000 }, (_, at) => file(`lost-${at}`, Buffer.from('2')));
    const lost = thread.write(many);
    await expect.poll(() => existsSync(join(directory, 'lost-0'))).toBe(true);
    await thread.terminate();
    expect(await lost).toEqual(many.map(() => new Error('the thread that writes files has ended')));
    await thread.write([file('again', Buffer.from('3'))]);
    expect(readFileSync(join(directory, 'again'), 'utf8')).toBe('3');
  });
});
