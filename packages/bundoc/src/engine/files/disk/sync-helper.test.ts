import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SyncHelper } from './sync-helper.ts';

/** Processes that this one has started, by command. */
function children(): string[] {
  const text = execFileSync('ps', ['-o', 'pid=,ppid=,args=', '-e'], { encoding: 'utf8' });
  return text
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line))
    .filter((found) => found?.[2] === String(process.pid) && found[3]?.includes('while read') === true)
    .map((found) => found?.[1] as string);
}

describe('the process that syncs file systems', () => {
  it('is one for all syncs, and another one takes its place when it ends', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bundoc-sync-'));
    const helper = new SyncHelper();
    try {
      await helper.sync(folder);
      const [first, ...others] = children();
      await helper.sync(folder);
      expect([children(), others]).toEqual([[first], []]);
      process.kill(Number(first), 'SIGKILL');
      await expect.poll(children).toEqual([]);
      await helper.sync(folder);
      await helper.sync(folder);
      expect(children()).not.toContain(first);
      for (const pid of children()) process.kill(Number(pid), 'SIGKILL');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('tells of a sync that fails', async () => {
    const helper = new SyncHelper();
    await expect(helper.sync(join(tmpdir(), 'bundoc-no-such-folder'))).rejects.toThrow(
      /^failed .*no-such-folder/,
    );
    for (const pid of children()) process.kill(Number(pid), 'SIGKILL');
  });
});
