import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statfsSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { memoryFolder } from './memory-folder.ts';

const MUCH = Number.MAX_SAFE_INTEGER;
/** Whether this machine has room: a container often gives 64 MiB. */
const hasRoom = existsSync('/dev/shm') && room('/dev/shm') > 4_294_967_296;

const made: string[] = [];
afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function room(folder: string): number {
  const { bsize, bavail } = statfsSync(folder);
  return bsize * bavail;
}

function newFolder(): string | undefined {
  const folder = memoryFolder({ availableBytes: MUCH });
  if (folder !== undefined) made.push(folder);
  return folder;
}

describe('temporary files of tests', () => {
  it.runIf(hasRoom)('are in memory, in a folder that all users may write to', () => {
    const folder = newFolder();
    expect(folder).toMatch(/^\/dev\/shm\/bundoc-tests-\d+-/);
    expect(statSync(folder as string).mode & 0o7777).toBe(0o1777);
  });

  it.runIf(hasRoom)('of a run that was killed are removed, and none of a run that goes on', () => {
    const { pid } = spawnSync('true');
    const left = `/dev/shm/bundoc-tests-${pid}-left`;
    mkdirSync(left);
    const running = newFolder() as string;
    newFolder();
    expect([existsSync(left), existsSync(running)]).toEqual([false, true]);
  });

  it('are on the disk where memory is short, or where there is none for files', () => {
    expect(memoryFolder({ availableBytes: 1_073_741_824 })).toBeUndefined();
    expect(memoryFolder({ root: '/nonexistent', availableBytes: MUCH })).toBeUndefined();
    const disk = mkdtempSync(join(tmpdir(), 'bundoc-disk-'));
    made.push(disk);
    // It may be in memory itself.
    const { type } = statfsSync(disk);
    if (type !== 0x01021994) expect(memoryFolder({ root: disk, availableBytes: MUCH })).toBeUndefined();
  });
});
