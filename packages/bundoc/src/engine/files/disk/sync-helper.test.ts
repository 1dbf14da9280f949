import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { processes } from '@bundoc/shared/testing/processes';
import { describe, expect, it } from 'vitest';
import { SyncHelper } from './sync-helper.ts';

/** Sync processes that this one has started. */
function children(): number[] {
  return processes()
    .filter(({ parent, args }) => parent === process.pid && args.includes('IFS= read'))
    .map(({ pid }) => pid);
}

describe('the process that syncs file systems', () => {
  it('runs all syncs, and is replaced when it ends', async () => {
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
      for (const pid of children()) process.kill(pid, 'SIGKILL');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('counts a sync as failed when it dies during it, because the report of a failed write may be lost', async () => {
    const bin = mkdtempSync(join(tmpdir(), 'bundoc-sync-'));
    const own = `sleep 60.${process.pid}`;
    // Replaces that of coreutils.
    writeFileSync(join(bin, 'sync'), `#!/bin/sh\nexec ${own}\n`, { mode: 0o755 });
    const { PATH } = process.env;
    process.env['PATH'] = `${bin}:${PATH}`;
    try {
      const helper = new SyncHelper();
      const sync = helper.sync(bin);
      await expect.poll(() => processes().filter(({ args }) => args === own).length).toBe(1);
      const [sleeping] = processes().filter(({ args }) => args === own);
      for (const pid of children()) process.kill(pid, 'SIGKILL');
      process.kill(Number(sleeping?.pid), 'SIGKILL');
      await expect(sync).rejects.toThrow('the process that syncs has ended during a sync');
    } finally {
      process.env['PATH'] = PATH;
      rmSync(bin, { recursive: true });
    }
  });

  it('reports a failed sync', async () => {
    const helper = new SyncHelper();
    await expect(helper.sync(join(tmpdir(), 'bundoc-no-such-folder'))).rejects.toThrow(
      /^failed .*no-such-folder/,
    );
    for (const pid of children()) process.kill(pid, 'SIGKILL');
  });
});
