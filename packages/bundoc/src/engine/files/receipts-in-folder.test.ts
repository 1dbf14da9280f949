import { describe, expect, it } from 'vitest';
import { RECEIPTS_BYTES_MAX } from '../../kms/receipt-store.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { receiptsInFolder } from './receipts-in-folder.ts';

const FILE = '/data/kms-receipts.json';
const newDisk = () => new SimulatedDisk('/', '/data', '/data/tmp');
const storeOn = (disk: SimulatedDisk) => receiptsInFolder(disk, '/data', '/data/tmp');

describe('the receipts in a data folder', () => {
  it('are none in a new folder', async () => {
    expect(await storeOn(newDisk()).read()).toBeUndefined();
  });

  it('are durable once they are written, and nothing else is left', async () => {
    const disk = newDisk();
    await storeOn(disk).write(() => 'one');
    await storeOn(disk).write(() => 'two');
    const later = disk.powerCut('synced only');
    expect(await storeOn(later).read()).toBe('two');
    expect([...later.files().keys()]).toEqual([FILE]);
  });

  it('are complete, the former or the new ones, after a power cut at any operation', async () => {
    const trial = newDisk();
    await storeOn(trial).write(() => 'former');
    const before = trial.operations;
    await storeOn(trial).write(() => 'new');
    expect(trial.operations).toBeGreaterThan(before);
    for (let operation = 1; operation <= trial.operations - before; operation++)
      for (const when of ['before', 'after'] as const)
        for (const survival of ['synced only', 'everything'] as const) {
          const disk = newDisk();
          await storeOn(disk).write(() => 'former');
          disk.failAt({ operation, when, what: 'crash' });
          await expect(storeOn(disk).write(() => 'new')).rejects.toThrow();
          expect(disk.crashed).toBe(true);
          expect(['former', 'new']).toContain(await storeOn(disk.powerCut(survival)).read());
        }
  });

  it('stay as they are on a full disk, and nothing is left over', async () => {
    const disk = newDisk();
    await storeOn(disk).write(() => 'former');
    disk.full = true;
    await expect(storeOn(disk).write(() => 'new')).rejects.toMatchObject({ code: 'disk_full' });
    expect([...disk.files()].map(([path, content]) => [path, content.toString()])).toEqual([
      [FILE, 'former'],
    ]);
  });

  it('are not read from a file that is too large, which is replaced', async () => {
    const disk = newDisk();
    await disk.createFile(FILE, Buffer.alloc(RECEIPTS_BYTES_MAX + 1));
    await expect(storeOn(disk).read()).rejects.toMatchObject({ code: 'project_damaged' });
    await storeOn(disk).write(() => 'new');
    expect(await storeOn(disk).read()).toBe('new');
  });
});
