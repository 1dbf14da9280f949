import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LogProject, OpenLogProject, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { Log } from './log.ts';
import { NodeLogDisk } from './node-log-disk.ts';
import { openParts, partsBehind } from './parts.ts';

const directory = mkdtempSync(join(tmpdir(), 'bundoc-log-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('NodeLogDisk', () => {
  it('holds a log on the real disk, which the next process opens', async () => {
    const storageId = randomBytes(16);
    const options = { directory: join(directory, 'log'), storageId, limits: SMALL_LIMITS };
    const projects = Array.from({ length: 20 }, (_, at) => new LogProject(`p${at}`));
    let id = 0;
    {
      await using disk = new NodeLogDisk();
      await using log = await Log.open({ disk, ...options, mustExist: false });
      const open = projects.map((project) => new OpenLogProject(log, project, [], undefined));
      for (let round = 0; round < 5; round++)
        await Promise.all(open.map((one) => one.commit({ id: ++id, fate: 'waiting' }, 700)));
    }
    for (const name of readdirSync(options.directory)) {
      const { mode, size } = statSync(join(options.directory, name));
      expect([mode & 0o777, size]).toEqual([0o600, SMALL_LIMITS.segmentBytes]);
    }
    await using disk = new NodeLogDisk();
    await using log = await Log.open({ disk, ...options, mustExist: true });
    await using reader = log.reader();
    for (const { handle, name, keys, given } of projects) {
      const wanted = { handle, newest: log.newest(handle), covered: undefined, carried: [] };
      let parts = 0;
      for await (const _ of openParts(name, storageId, keys, partsBehind(reader, wanted))) parts++;
      expect(parts).toBe(given.length);
    }
  });

  it('writes what is longer than its buffer, and tells the fault of a file that cannot be written', async () => {
    await using disk = new NodeLogDisk();
    disk.frameBuffer(8_192);
    const path = join(directory, 'long');
    await disk.createFile(path, Buffer.alloc(65_536));
    await expect(disk.createFile(path, Buffer.alloc(1))).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
    const content = randomBytes(40_960);
    const file = await disk.openLogFile(path);
    await file.writeDurably(4_096, content);
    expect(await file.read(4_096, content.length)).toEqual(content);
    expect(await file.read(65_000, 10_000)).toHaveLength(536);
    await file.close();
    // The descriptor is closed.
    await expect(file.writeDurably(0, Buffer.alloc(10))).rejects.toMatchObject({
      code: 'storage_unavailable',
      cause: { code: 'EBADF' },
    });
  });

  it('fails what is asked of a thread that has ended', async () => {
    const disk = new NodeLogDisk();
    disk.frameBuffer(4_096);
    const path = join(directory, 'ended');
    await disk.createFile(path, Buffer.alloc(4_096));
    await using file = Object.assign(await disk.openLogFile(path), {
      async [Symbol.asyncDispose]() {
        await file.close();
      },
    });
    await disk[Symbol.asyncDispose]();
    await disk[Symbol.asyncDispose]();
    await expect(file.writeDurably(0, Buffer.alloc(10))).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });
});
