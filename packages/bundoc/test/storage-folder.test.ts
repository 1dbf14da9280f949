import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { describe, expect, it, onTestFinished } from 'vitest';
import { lockDataFolder } from '../src/engine/files/data-lock.ts';
import { openNodeDisk } from '../src/engine/files/disk/node-disk.ts';
import { identifyFolder } from '../src/engine/files/identity-in-folder.ts';
import { openFileStorage } from '../src/engine/files/index.ts';
import { openFolder, viewFolder } from '../src/engine/files/storage-folder.ts';

const LOG_BYTES = 67_108_864;

/** A data folder on the real disk. */
function start() {
  const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-folder-'));
  const folder = DataFolder.open(dataDir);
  const lock = lockDataFolder(dataDir);
  const disk = openNodeDisk(dataDir);
  onTestFinished(async () => {
    await disk[Symbol.asyncDispose]();
    lock[Symbol.dispose]();
    folder[Symbol.dispose]();
    rmSync(dataDir, { recursive: true });
  });
  const held = { dataDir, folder, lock, disk };
  const open = () => openFolder(held, { logBytes: LOG_BYTES });
  const view = async () => viewFolder(held, await identifyFolder(disk, dataDir));
  return { dataDir, open, view };
}

describe('a data folder', () => {
  it('tells how much a project has to load when it opens: the bytes of its catalog and of its indexes', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-folder-'));
    onTestFinished(() => rmSync(dataDir, { recursive: true }));
    await using storage = await openFileStorage(
      { dataDir, logBytes: LOG_BYTES, archive: undefined, cacheBytes: 0, snapshotBytes: 1_048_576 },
      { clock: systemClock, logger: createLogger({ service: 'bundoc', level: 'silent' }) },
    );
    mkdirSync(join(dataDir, 'projects/p'), { recursive: true });
    expect(await storage.storedBytes?.('p')).toBe(0);
    writeFileSync(join(dataDir, 'projects/p/catalog'), Buffer.alloc(1_000));
    expect(await storage.storedBytes?.('p')).toBe(1_000);
    writeFileSync(join(dataDir, 'projects/p/indexes'), Buffer.alloc(234));
    expect(await storage.storedBytes?.('p')).toBe(1_234);
    // A listing of the folder saves looks at files that do not exist.
    expect(await storage.storedBytes?.('p', ['project.json', 'catalog'])).toBe(1_000);
  });

  it('records that it has a log from its first start on, and does not start without that one', async () => {
    const { dataDir, open, view } = start();
    await using first = await open();
    await first[Symbol.asyncDispose]();
    expect(JSON.parse(readFileSync(join(dataDir, 'storage.json'), 'utf8'))).toMatchObject({ log: true });
    await using second = await open();
    await second[Symbol.asyncDispose]();
    rmSync(join(dataDir, 'log'), { recursive: true });
    for (const action of [open, view])
      await expect(action()).rejects.toThrow(expect.objectContaining({ name: 'LogDamaged' }));
  });
});
