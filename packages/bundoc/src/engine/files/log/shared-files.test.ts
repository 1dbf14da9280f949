import { describe, expect, it } from 'vitest';
import type { LogFile } from './ports.ts';
import { SharedFiles } from './shared-files.ts';

/** Files that record opening and closing; `broken` cannot be opened. */
function notingDisk() {
  const opened: string[] = [];
  const closed: string[] = [];
  const openLogFile = async (path: string): Promise<LogFile> => {
    opened.push(path);
    if (path === 'broken') throw new Error('broken');
    const close = async () => void closed.push(path);
    return { close } as Partial<LogFile> as LogFile;
  };
  return { opened, closed, openLogFile };
}

const MANY = Array.from({ length: 30 }, (_, at) => `segment ${at}`);

describe('shared files of the log', () => {
  it('are opened once for all readers, and not again while they are kept', async () => {
    const disk = notingDisk();
    const files = new SharedFiles(disk);
    const readers = [await files.openLogFile('a'), await files.openLogFile('a')];
    for (const reader of readers) await reader.close();
    await (await files.openLogFile('a')).close();
    expect(disk).toMatchObject({ opened: ['a'], closed: [] });
  });

  it('are never closed during a read, however many others are opened', async () => {
    const disk = notingDisk();
    const files = new SharedFiles(disk);
    const read = await files.openLogFile('read');
    await (await files.openLogFile('unused')).close();
    for (const path of MANY) await (await files.openLogFile(path)).close();
    expect(disk.closed).toContain('unused');
    expect(disk.closed).not.toContain('read');
    // Closing twice counts once.
    const second = await files.openLogFile('read');
    await second.close();
    await second.close();
    for (const path of MANY) await (await files.openLogFile(path)).close();
    expect(disk.closed).not.toContain('read');
    await read.close();
    await files[Symbol.asyncDispose]();
    expect(disk.closed.filter((path) => path === 'read')).toEqual(['read']);
    expect(disk.closed.toSorted()).toEqual(disk.opened.toSorted());
  });

  it('are closed when more than a few are unused, the least recently used first', async () => {
    const disk = notingDisk();
    const files = new SharedFiles(disk);
    const [first, second, ...others] = MANY as [string, string, ...string[]];
    for (const path of [first, second, first, ...others]) await (await files.openLogFile(path)).close();
    const kept = disk.opened.length - disk.closed.length;
    expect(kept).toBeGreaterThan(1);
    expect(disk.closed).toEqual([second, first, ...others].slice(0, MANY.length - kept));
  });

  it('are opened again after a failure', async () => {
    const disk = notingDisk();
    const files = new SharedFiles(disk);
    for (let round = 0; round < 2; round++)
      await expect(files.openLogFile('broken')).rejects.toThrow('broken');
    expect(disk.opened).toEqual(['broken', 'broken']);
  });
});
