import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { afterAll, describe, expect, it } from 'vitest';
import { LogProject, OpenLogProject, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { openNodeDisk } from '../disk/node-disk.ts';
import { Log } from './log.ts';
import { NodeLogDisk } from './node-log-disk.ts';
import { openParts, partsBehind } from './parts.ts';
import { LogDamaged } from './scan.ts';

const directory = mkdtempSync(join(tmpdir(), 'bundoc-log-'));
const folder = DataFolder.open(directory);
const entries = openNodeDisk(directory);
const newDisk = () => new NodeLogDisk(entries, folder);
afterAll(async () => {
  folder[Symbol.dispose]();
  await entries[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});

describe('NodeLogDisk', () => {
  it('stores a log on the real disk that the next process can open', async () => {
    const storageId = randomBytes(16);
    const options = { directory: join(directory, 'log'), storageId, limits: SMALL_LIMITS };
    const projects = Array.from({ length: 20 }, (_, at) => new LogProject(`p${at}`));
    let id = 0;
    {
      await using disk = newDisk();
      await using log = await Log.open({ disk, ...options, mustExist: false });
      const open = projects.map((project) => new OpenLogProject(log, project, [], undefined));
      for (let round = 0; round < 5; round++)
        await Promise.all(open.map((one) => one.commit({ id: ++id, fate: 'waiting' }, 700)));
    }
    for (const name of readdirSync(options.directory)) {
      const { mode, size } = statSync(join(options.directory, name));
      expect([mode & 0o777, size]).toEqual([0o600, SMALL_LIMITS.segmentBytes]);
    }
    await using disk = newDisk();
    await using log = await Log.open({ disk, ...options, mustExist: true });
    await using reader = log.reader();
    for (const { handle, name, keys, given } of projects) {
      const wanted = { handle, newest: log.newest(handle), covered: undefined, carried: [] };
      let parts = 0;
      for await (const _ of openParts(name, storageId, keys, partsBehind(reader, wanted))) parts++;
      expect(parts).toBe(given.length);
    }
  });

  it('never removes a file that another process has created with the name of its next segment', async () => {
    const options = {
      directory: join(directory, 'shared'),
      storageId: randomBytes(16),
      limits: SMALL_LIMITS,
    };
    await using disk = newDisk();
    await using log = await Log.open({ disk, ...options, mustExist: false });
    const next = join(options.directory, String(readdirSync(options.directory).length).padStart(8, '0'));
    writeFileSync(next, 'of another');
    const project = new OpenLogProject(log, new LogProject('p'), [], undefined);
    // The failing creation of a segment may refuse some.
    for (let id = 1; log.stats.segmentsLive < 4; id++)
      await project.commit({ id, fate: 'waiting' }, 3_000).catch(() => undefined);
    expect(readFileSync(next).equals(Buffer.from('of another'))).toBe(true);
  });

  it('writes data longer than its buffer, and reports the error of an unwritable file', async () => {
    await using disk = newDisk();
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

  it('opens no link, no folder and no file larger than a segment', async () => {
    await using disk = newDisk();
    writeFileSync(join(directory, 'outside'), Buffer.alloc(8_192));
    symlinkSync(join(directory, 'outside'), join(directory, 'link'));
    mkdirSync(join(directory, 'folder'));
    writeFileSync(join(directory, 'huge'), '');
    truncateSync(join(directory, 'huge'), 33_554_433);
    for (const name of ['link', 'folder', 'huge'])
      await expect(disk.openLogFile(join(directory, name))).rejects.toThrow(LogDamaged);
    await expect(disk.openLogFile(join(tmpdir(), 'elsewhere'))).rejects.toThrow('storage_unavailable');
  });

  it('fails requests to a thread that has ended', async () => {
    const disk = newDisk();
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
