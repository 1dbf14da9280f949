import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { describeProjectStore } from '../../conformance/conformance.ts';
import { describeTakeOvers } from '../../conformance/take-over-conformance.ts';
import { openNodeDisk } from '../disk/node-disk.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

for (const cacheBytes of [0, 1_000_000]) {
  describeProjectStore(`FileStore on a simulated disk, with ${cacheBytes} bytes of cache,`, async () => {
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    return {
      store: await project.open(disk, cacheBytes),
      reopen: () => project.open(disk.powerCut('synced only'), cacheBytes),
    };
  });
}

describeTakeOvers('FileStore on a simulated disk', async () => {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  return {
    store: await project.open(disk),
    reopen: () => project.open(disk.powerCut('synced only')),
    takeOver: async (takenOverMs) => {
      project.takenOverMs = Math.max(project.takenOverMs, takenOverMs);
    },
  };
});

describeProjectStore('FileStore on the real disk', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-engine-'));
  folders.push(dataDir);
  const project = new ProjectInFiles({ directory: join(dataDir, 'p') });
  const disk = openNodeDisk(dataDir);
  await project.create(disk);
  return { store: await project.open(disk), reopen: () => project.open(disk) };
});
