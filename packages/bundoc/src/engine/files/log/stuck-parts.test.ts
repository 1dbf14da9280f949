import { describe, expect, it } from 'vitest';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { StuckParts } from './stuck-parts.ts';

const HANDLE = '0123456789abcdef';
const COVERED = { segment: 9, frame: 1 };

async function started() {
  const disk = new SimulatedDisk('/', '/log');
  const stuck = await StuckParts.open(disk, '/log');
  for (const segment of [1, 2, 3])
    await stuck.put({ handle: HANDLE, segment, content: Buffer.from('no carried file') });
  return { disk, stuck };
}

describe('parts of projects whose folders failed', () => {
  it('can be removed while a checkpoint reads them, and neither fails', async () => {
    const { disk, stuck } = await started();
    await Promise.all([
      stuck.removeUpTo(HANDLE, COVERED),
      stuck.remove(HANDLE),
      stuck.removeUpTo(HANDLE, COVERED),
    ]);
    expect([[...stuck.handles], await disk.list('/log/stuck')]).toEqual([[], []]);
  });

  it('stay in the list when they cannot be removed', async () => {
    const { disk, stuck } = await started();
    disk.failing = (operation) => (operation.startsWith('remove ') ? 'before' : undefined);
    await expect(stuck.remove(HANDLE)).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect([...stuck.handles]).toEqual([HANDLE]);
  });
});
