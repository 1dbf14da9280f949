import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/errors';
import { describe, expect, it } from 'vitest';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { Backlog } from './backlog.ts';
import type { Disk } from './disk.ts';
import { FileWriter } from './file-writer.ts';

const name = (n: number) => n.toString(16).padStart(32, '0');

/** A disk whose writes wait until the test lets them. */
function heldDisk() {
  const inner = new SimulatedDisk('/', '/docs');
  const held: (() => void)[] = [];
  const disk: Disk = {
    ...bound(inner),
    writeFiles: async (files) => {
      await new Promise<void>((resolve) => held.push(resolve));
      return inner.writeFiles(files);
    },
  };
  return { disk, inner, release: () => held.splice(0).map((resolve) => resolve()).length };
}

function bound(disk: SimulatedDisk): Disk {
  return {
    read: (path, bytesMax) => disk.read(path, bytesMax),
    size: (path) => disk.size(path),
    list: (path) => disk.list(path),
    makeDirectory: (path) => disk.makeDirectory(path),
    createFile: (path, content) => disk.createFile(path, content),
    rename: (from, to) => disk.rename(from, to),
    remove: (path) => disk.remove(path),
    removeTree: (path) => disk.removeTree(path),
    syncDirectory: (path) => disk.syncDirectory(path),
    openFile: (path) => disk.openFile(path),
    writeFiles: (files) => disk.writeFiles(files),
    syncFiles: (paths) => disk.syncFiles(paths),
  };
}

function writerOn(disk: Disk, backlog: Backlog) {
  const failures: unknown[] = [];
  const writer = new FileWriter({
    disk,
    directory: '/docs',
    backlog,
    onFailure: (error) => failures.push(error),
  });
  return { writer, failures };
}

async function hasSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise
    .catch(() => undefined)
    .finally(() => {
      settled = true;
    });
  for (let turn = 0; turn < 5; turn++) await setImmediate();
  return settled;
}

describe('room among the document files that wait', () => {
  it('is waited for while the projects together have too many, and is there as soon as enough are written', async () => {
    const backlog = new Backlog(1_000);
    const one = heldDisk();
    const other = heldDisk();
    const { writer } = writerOn(one.disk, backlog);
    const { writer: neighbour } = writerOn(other.disk, backlog);
    writer.put(name(1), Buffer.alloc(400));
    neighbour.put(name(2), Buffer.alloc(700));
    const room = writer.room();
    expect(await hasSettled(room)).toBe(false);
    other.release();
    await room;
    expect(backlog.bytes).toBe(400);
    one.release();
    await writer.flush();
    expect(backlog.bytes).toBe(0);
  });

  it('is not waited for by a project of which nothing waits', async () => {
    const backlog = new Backlog(1_000);
    const { writer } = writerOn(heldDisk().disk, backlog);
    const { writer: neighbour } = writerOn(heldDisk().disk, backlog);
    neighbour.put(name(1), Buffer.alloc(5_000));
    await writer.room();
    expect(await hasSettled(neighbour.room())).toBe(false);
  });

  it('counts a file that was overwritten before it was written once, with its last size', async () => {
    const backlog = new Backlog(1_000);
    const { disk, release } = heldDisk();
    const { writer } = writerOn(disk, backlog);
    writer.put(name(1), Buffer.alloc(800));
    writer.put(name(1), Buffer.alloc(300));
    expect(backlog.bytes).toBe(300);
    writer.remove(name(1));
    expect(backlog.bytes).toBe(0);
    while (release() > 0) await setImmediate();
    await writer.flush();
    expect(backlog.bytes).toBe(0);
  });

  it('is waited for no longer once files cannot be written, and what waits leaves the others alone when the project is closed', async () => {
    const backlog = new Backlog(1_000);
    const { disk } = heldDisk();
    const failing: Disk = {
      ...disk,
      writeFiles: async (files) => files.map(() => new AppError('storage_unavailable')),
    };
    const { writer, failures } = writerOn(failing, backlog);
    writer.put(name(1), Buffer.alloc(5_000));
    await writer.room();
    expect(failures).toHaveLength(1);
    expect(backlog.bytes).toBe(5_000);
    await writer.stop();
    expect(backlog.bytes).toBe(0);
  });

  it('is given back by what was still being written when the project was closed', async () => {
    const backlog = new Backlog(1_000);
    const { disk, release } = heldDisk();
    const { writer } = writerOn(disk, backlog);
    for (let n = 0; n < 3; n++) writer.put(name(n), Buffer.alloc(500));
    await setImmediate();
    const stopped = writer.stop();
    release();
    await stopped;
    expect(backlog.bytes).toBe(0);
  });

  it('is refused on a full disk', async () => {
    const backlog = new Backlog(1_000);
    const disk = new SimulatedDisk('/', '/docs');
    disk.full = true;
    const { writer } = writerOn(disk, backlog);
    writer.put(name(1), Buffer.alloc(5_000));
    await expect(writer.room()).rejects.toMatchObject({ code: 'disk_full' });
    await writer.stop();
  });
});
