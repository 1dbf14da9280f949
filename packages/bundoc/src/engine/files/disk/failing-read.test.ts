import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { openNodeDisk } from './node-disk.ts';

type Read = (file: number, buffer: Buffer, at: number, length: number, offset: number, done: Done) => void;
type Done = (error: NodeJS.ErrnoException | null, bytesRead: number) => void;

const disk = vi.hoisted(() => ({ read: undefined as Read | undefined }));
vi.mock('node:fs', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:fs')>();
  const read: Read = (...args) => (disk.read ?? (original.read as Read))(...args);
  return { ...original, read };
});

const CONTENT = 'ten bytes.';

function start() {
  const root = mkdtempSync(join(tmpdir(), 'bundoc-disk-'));
  mkdirSync(join(root, 'p'));
  writeFileSync(join(root, 'p/doc'), CONTENT);
  return { root, nodeDisk: openNodeDisk(root, 'descriptors') };
}

it('a file that the disk returns in pieces is read completely, and an error in the middle is reported', async () => {
  const { root, nodeDisk } = start();
  let pieces = 0;
  let fails = false;
  disk.read = (_file, buffer, at, _length, offset, done) => {
    pieces++;
    if (fails && pieces === 3) done(Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' }), 0);
    else done(null, buffer.write(CONTENT.slice(offset, offset + 4), at));
  };
  try {
    expect(`${await nodeDisk.read(join(root, 'p/doc'), 1_000)}`).toBe(CONTENT);
    expect(pieces).toBe(3);
    using file = await nodeDisk.openToRead(join(root, 'p/doc'), 1_000);
    const target = Buffer.alloc(CONTENT.length);
    expect([await file?.readInto(target, 0), `${target}`]).toEqual([CONTENT.length, CONTENT]);
    [pieces, fails] = [0, true];
    const unavailable = { code: 'storage_unavailable' };
    await expect(nodeDisk.read(join(root, 'p/doc'), 1_000)).rejects.toMatchObject(unavailable);
    pieces = 0;
    await expect(file?.readInto(target, 0)).rejects.toMatchObject(unavailable);
  } finally {
    disk.read = undefined;
    await nodeDisk[Symbol.asyncDispose]();
    rmSync(root, { recursive: true });
  }
});
