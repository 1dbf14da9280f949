import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { type Containment, DataFolder, UnsafeEntry } from '@bundoc/shared/files/data-folder';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Disk } from './disk.ts';
import { READS_AT_ONCE } from './entries.ts';
import { type NodeDisk, openNodeDisk } from './node-disk.ts';
import { CHECKED_FOR_MS, OPEN_FOLDERS_MAX, OpenFolders } from './open-folders.ts';

const CANARY = 'canary outside of the data folder';
const BYTES_MAX = 1_000;

/** A data folder, and a folder beside it that must stay untouched. */
function start(containment: Containment): { root: string; outside: string; disk: NodeDisk } {
  const base = mkdtempSync(join(tmpdir(), 'bundoc-disk-'));
  const [root, outside] = [join(base, 'data'), join(base, 'outside')];
  for (const path of [root, outside, join(root, 'p'), join(root, 'p/docs'), join(outside, 'docs')])
    mkdirSync(path);
  for (const path of ['canary', 'docs/canary', 'docs/doc']) writeFileSync(join(outside, path), CANARY);
  const disk = openNodeDisk(root, containment);
  onTestFinished(async () => {
    expect(treeOf(outside)).toEqual(['canary', 'docs', 'docs/canary', 'docs/doc']);
    for (const path of ['canary', 'docs/canary', 'docs/doc'])
      expect(readFileSync(join(outside, path), 'utf8')).toBe(CANARY);
    await disk[Symbol.asyncDispose]();
    rmSync(base, { recursive: true });
  });
  return { root, outside, disk };
}

const treeOf = (directory: string) => readdirSync(directory, { recursive: true }).map(String).sort();

const damaged = (what: RegExp) =>
  expect.objectContaining({
    code: 'project_damaged',
    cause: expect.objectContaining({ message: expect.stringMatching(what) }),
  });

/** Entries to plant in place of a file, and the log line for each. */
const PLANTED: readonly [string, (path: string, outside: string) => unknown, RegExp][] = [
  [
    'a link to a file outside',
    (path, outside) => symlinkSync(join(outside, 'canary'), path),
    /symbolic link/,
  ],
  ['a link to a device', (path) => symlinkSync('/dev/zero', path), /symbolic link/],
  ['a pipe', (path) => execFileSync('mkfifo', [path]), /not a regular file/],
  ['a folder', (path) => mkdirSync(path), /folder where a file belongs/],
  ['a socket', listen, /not a regular file/],
];

async function listen(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => void server.close());
}

describe.each<Containment>(['descriptors', 'paths'])('the real disk, contained by %s', (containment) => {
  it.each(PLANTED)('neither reads nor opens %s in place of a file', async (_, plant, what) => {
    const { root, outside, disk } = start(containment);
    const path = join(root, 'p/file');
    await plant(path, outside);
    await expect(disk.read(path, BYTES_MAX)).rejects.toEqual(damaged(what));
    await expect(disk.openToRead(path, BYTES_MAX)).rejects.toEqual(damaged(what));
    await expect(disk.openFile(path)).rejects.toEqual(damaged(what));
    await expect(disk.syncFiles([path])).rejects.toEqual(damaged(what));
    const [failure, other] = await disk.writeFiles([
      { path, content: Buffer.from('written') },
      { path: join(root, 'p/other'), content: Buffer.from('written') },
    ]);
    expect(failure).toEqual(damaged(what));
    expect([other, readFileSync(join(root, 'p/other'), 'utf8')]).toEqual([undefined, 'written']);
    await expect(disk.createFile(path, Buffer.from('made'))).rejects.toThrow('storage_unavailable');
  });

  it('reads no more than expected, however large a sparse file is', async () => {
    const { root, disk } = start(containment);
    const path = join(root, 'p/file');
    writeFileSync(path, Buffer.alloc(BYTES_MAX, 1));
    expect(await disk.read(path, BYTES_MAX)).toEqual(Buffer.alloc(BYTES_MAX, 1));
    truncateSync(path, 10 * 1_073_741_824);
    const tooLarge = damaged(/^p\/file has 10737418240 bytes, and at most 1000 are expected$/);
    await expect(disk.read(path, BYTES_MAX)).rejects.toEqual(tooLarge);
    await expect(disk.openToRead(path, BYTES_MAX)).rejects.toEqual(tooLarge);
  });

  it('reads a file in pieces from any offset, even if it was replaced meanwhile', async () => {
    const { root, disk } = start(containment);
    const path = join(root, 'p/file');
    writeFileSync(path, 'ten bytes.');
    expect(await disk.openToRead(join(root, 'p/none'), BYTES_MAX)).toBeUndefined();
    using file = await disk.openToRead(path, BYTES_MAX);
    expect(file?.bytes).toBe(10);
    rmSync(path);
    writeFileSync(path, 'another');
    const target = Buffer.alloc(6);
    expect([await file?.readInto(target, 4), target.toString()]).toEqual([6, 'bytes.']);
    expect([await file?.readInto(target, 8), target.toString('latin1', 0, 2)]).toEqual([2, 's.']);
    expect(await file?.readInto(target, 10)).toBe(0);
  });

  const operations: readonly [string, (disk: Disk, root: string) => Promise<unknown>][] = [
    ['read', (disk, root) => disk.read(join(root, 'p/docs/canary'), BYTES_MAX)],
    ['openToRead', (disk, root) => disk.openToRead(join(root, 'p/docs/canary'), BYTES_MAX)],
    [
      'openToRead of what is absent there',
      (disk, root) => disk.openToRead(join(root, 'p/docs/none'), BYTES_MAX),
    ],
    ['read of what is absent there', (disk, root) => disk.read(join(root, 'p/docs/none'), BYTES_MAX)],
    ['list', (disk, root) => disk.list(join(root, 'p/docs'))],
    ['list of what is absent there', (disk, root) => disk.list(join(root, 'p/docs/none'))],
    ['remove of what is absent there', (disk, root) => disk.remove(join(root, 'p/docs/none/none'))],
    ['makeDirectory', (disk, root) => disk.makeDirectory(join(root, 'p/docs'))],
    ['makeDirectory below', (disk, root) => disk.makeDirectory(join(root, 'p/docs/made'))],
    ['createFile', (disk, root) => disk.createFile(join(root, 'p/docs/made'), Buffer.from('made'))],
    ['rename from', (disk, root) => disk.rename(join(root, 'p/docs/canary'), join(root, 'p/taken'))],
    ['rename to', (disk, root) => disk.rename(join(root, 'p/file'), join(root, 'p/docs/canary'))],
    ['remove', (disk, root) => disk.remove(join(root, 'p/docs/canary'))],
    ['removeTree', (disk, root) => disk.removeTree(join(root, 'p/docs/canary'))],
    ['syncDirectory', (disk, root) => disk.syncDirectory(join(root, 'p/docs'))],
    ['openFile', (disk, root) => disk.openFile(join(root, 'p/docs/canary'))],
    ['syncFiles', (disk, root) => disk.syncFiles([join(root, 'p/docs/canary')])],
    [
      'syncFiles of many',
      (disk, root) => disk.syncFiles(Array.from({ length: 200 }, () => join(root, 'p/docs/canary'))),
    ],
    [
      'writeFiles',
      (disk, root) => written(disk, { path: join(root, 'p/docs/made'), content: Buffer.from('made') }),
    ],
    [
      'writeFiles over',
      (disk, root) => written(disk, { path: join(root, 'p/docs/canary'), content: Buffer.from('over') }),
    ],
    [
      'writeFiles that removes',
      (disk, root) => written(disk, { path: join(root, 'p/docs/canary'), content: undefined }),
    ],
    [
      'writeFiles in a new folder',
      (disk, root) => written(disk, { path: join(root, 'p/docs/new/made'), content: Buffer.from('made') }),
    ],
  ];
  it.each(operations)('%s reaches nothing through a folder that is a link', async (_, operation) => {
    const { root, outside, disk } = start(containment);
    writeFileSync(join(root, 'p/file'), 'own');
    rmSync(join(root, 'p/docs'), { recursive: true });
    symlinkSync(join(outside, 'docs'), join(root, 'p/docs'));
    await expect(operation(disk, root)).rejects.toEqual(damaged(/p\/docs/));
    expect(readFileSync(join(root, 'p/file'), 'utf8')).toBe('own');
  });

  it('the write thread leaves a folder that was renamed or removed, and creates it again', async () => {
    const { root, disk } = start(containment);
    const change = (text: string) => ({ path: join(root, 'p/docs/doc'), content: Buffer.from(text) });
    expect(await disk.writeFiles([change('first')])).toEqual([undefined]);
    await disk.rename(join(root, 'p/docs'), join(root, 'p/aside'));
    expect(await disk.writeFiles([change('second')])).toEqual([undefined]);
    expect(readFileSync(join(root, 'p/docs/doc'), 'utf8')).toBe('second');
    expect(readFileSync(join(root, 'p/aside/doc'), 'utf8')).toBe('first');
    await disk.removeTree(join(root, 'p/docs'));
    expect(await disk.writeFiles([change('third')])).toEqual([undefined]);
    expect(readFileSync(join(root, 'p/docs/doc'), 'utf8')).toBe('third');
  });

  it('cached folders are checked again, so that a folder replaced by a link is not used for long', () => {
    const { root, outside } = start(containment);
    let nowMs = 0;
    using folder = DataFolder.open(root, containment);
    using folders = new OpenFolders(folder, () => nowMs);
    folders.entriesOf('p/docs');
    renameSync(join(root, 'p/docs'), join(root, 'p/aside'));
    symlinkSync(join(outside, 'docs'), join(root, 'p/docs'));
    nowMs += CHECKED_FOR_MS;
    expect(() => folders.entriesOf('p/docs')).toThrow(UnsafeEntry);
    rmSync(join(root, 'p/docs'));
    mkdirSync(join(root, 'p/docs'));
    writeFileSync(join(root, 'p/docs/own'), '');
    expect(readdirSync(folders.entriesOf('p/docs'))).toEqual(['own']);
  });

  it('folders of many projects take only a few descriptors, and each is reopened when it is needed', () => {
    const { root } = start(containment);
    using folder = DataFolder.open(root, containment);
    const before = readdirSync('/proc/self/fd').length;
    {
      using folders = new OpenFolders(folder);
      for (let round = 0; round < 2; round++)
        for (let at = 0; at < 3 * OPEN_FOLDERS_MAX; at++) {
          const name = `q${at}`;
          if (round === 0) mkdirSync(join(root, name));
          else expect(readdirSync(folders.entriesOf(name))).toEqual([`in-${name}`]);
          writeFileSync(`${folders.entriesOf(name)}/in-${name}`, '');
        }
      expect(readdirSync('/proc/self/fd').length - before).toBe(OPEN_FOLDERS_MAX);
      expect(OPEN_FOLDERS_MAX).toBeLessThanOrEqual(20);
    }
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('removeTree removes links, pipes and folders, and nothing that a link points to', async () => {
    const { root, outside, disk } = start(containment);
    symlinkSync(outside, join(root, 'p/docs/outside'));
    symlinkSync(join(outside, 'canary'), join(root, 'p/docs/canary'));
    execFileSync('mkfifo', [join(root, 'p/docs/pipe')]);
    mkdirSync(join(root, 'p/docs/a/b/c'), { recursive: true });
    for (let at = 0; at < 100; at++) writeFileSync(join(root, `p/docs/a/b/${at}`), 'x');
    await disk.removeTree(join(root, 'p/docs'));
    expect(existsSync(join(root, 'p/docs'))).toBe(false);
    symlinkSync(outside, join(root, 'p/docs'));
    await disk.removeTree(join(root, 'p/docs'));
    expect(lstatSync(join(root, 'p/docs'), { throwIfNoEntry: false })).toBeUndefined();
    await disk.removeTree(join(root, 'p/never-there'));
  });

  it("removeTree stops at folders deeper than Bundoc's, and holds few descriptors", async () => {
    const { root, disk } = start(containment);
    mkdirSync(join(root, 'p', ...Array.from({ length: 100 }, () => 'd')), { recursive: true });
    await expect(disk.removeTree(join(root, 'p/d'))).rejects.toEqual(damaged(/too deep/));
  });

  it('absent entries are reported as absent, and operations on files, folders and names work', async () => {
    const { root, disk } = start(containment);
    expect(await disk.read(join(root, 'p/none'), BYTES_MAX)).toBeUndefined();
    expect(await disk.read(join(root, 'none/none'), BYTES_MAX)).toBeUndefined();
    expect(await disk.list(join(root, 'none'))).toBeUndefined();
    expect(await disk.remove(join(root, 'p/none'))).toBe(false);
    expect(await disk.makeDirectory(join(root, 'q'))).toBe(true);
    expect(await disk.makeDirectory(join(root, 'q'))).toBe(false);
    await disk.createFile(join(root, 'q/a'), Buffer.from('content'));
    expect(lstatSync(join(root, 'q/a')).mode & 0o777).toBe(0o600);
    expect(lstatSync(join(root, 'q')).mode & 0o777).toBe(0o700);
    await disk.rename(join(root, 'q/a'), join(root, 'p/b'));
    expect(await disk.list(root)).toEqual(expect.arrayContaining(['p', 'q']));
    expect((await disk.read(join(root, 'p/b'), BYTES_MAX))?.toString()).toBe('content');
    expect(await disk.remove(join(root, 'p/b'))).toBe(true);
  });

  it.runIf(process.platform === 'linux')('has few files open, however many are read at once', async () => {
    const { root, disk } = start(containment);
    for (let n = 0; n < 300; n++) await disk.createFile(join(root, `p/r${n}`), Buffer.from(`content ${n}`));
    const open = () => readdirSync('/proc/self/fd').length;
    const before = open();
    let most = 0;
    let left = 300;
    const reads = Array.from({ length: 300 }, async (_, n) => {
      const content = await disk.read(join(root, `p/r${n}`), BYTES_MAX);
      most = Math.max(most, open() - before);
      left--;
      return content?.toString();
    });
    while (left > 0) {
      most = Math.max(most, open() - before);
      await setImmediate();
    }
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 300 }, (_, n) => `content ${n}`));
    expect(most).toBeLessThanOrEqual(READS_AT_ONCE);
  });

  it('continues to read after files that are absent or unreadable', async () => {
    const { root, disk } = start(containment);
    await disk.createFile(join(root, 'p/there'), Buffer.from('content'));
    const reads = Array.from({ length: 100 }, (_, n) =>
      disk.read(join(root, n % 2 === 0 ? 'p/none' : 'p'), BYTES_MAX).catch(() => 'refused'),
    );
    const last = disk.read(join(root, 'p/there'), BYTES_MAX);
    expect(new Set(await Promise.all(reads))).toEqual(new Set([undefined, 'refused']));
    expect((await last)?.toString()).toBe('content');
  });

  it('rejects a path outside its folder as a defect of the caller', async () => {
    const { root, outside, disk } = start(containment);
    for (const path of [
      join(outside, 'canary'),
      `${root}/../outside/canary`,
      `${root}x/canary`,
      `${root}/p/./x`,
    ])
      await expect(disk.read(path, BYTES_MAX)).rejects.toMatchObject({
        cause: { message: expect.stringContaining('is not below the data folder') },
      });
  });
});

it('a data folder stays the one in use when its path changes while it is open', async () => {
  const { root, outside, disk } = start('descriptors');
  await disk.createFile(join(root, 'p/file'), Buffer.from('content'));
  const moved = `${root}-moved`;
  renameSync(root, moved);
  symlinkSync(outside, root);
  expect((await disk.read(join(root, 'p/file'), BYTES_MAX))?.toString()).toBe('content');
  await expect(disk.read(join(root, 'canary'), BYTES_MAX)).resolves.toBeUndefined();
});

it('a data folder may have a path through a link, which the administrator has chosen', async () => {
  const { root } = start('descriptors');
  const link = `${root}-link`;
  symlinkSync(root, link);
  await using disk = openNodeDisk(link);
  await disk.createFile(join(link, 'p/file'), Buffer.from('content'));
  expect((await disk.read(join(link, 'p/file'), BYTES_MAX))?.toString()).toBe('content');
  const refused = await disk.read(join(root, 'p/file'), BYTES_MAX).catch((error: unknown) => error);
  expect(hasCode(refused, 'storage_unavailable')).toBe(true);
});

async function written(disk: Disk, change: Parameters<Disk['writeFiles']>[0][number]): Promise<void> {
  const [failure] = await disk.writeFiles([change]);
  if (failure !== undefined) throw failure;
}
