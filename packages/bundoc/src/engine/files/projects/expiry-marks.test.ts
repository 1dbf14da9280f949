import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { describeExpiryMarks } from '../../../projects/expiry-conformance.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { SWEEP_INTERVAL_MS } from '../../projects/expiry-marks.ts';
import { ExpiryMarksInFolders } from './expiry-marks.ts';

async function newPlace() {
  const clock = new FakeClock();
  const disk = new SimulatedDisk('/', '/projects');
  for (const project of ['a', 'b', 'c']) await disk.makeDirectory(`/projects/${project}`);
  await disk.syncDirectory('/projects');
  return { clock, disk, start: () => new ExpiryMarksInFolders({ disk, directory: '/projects', clock }) };
}

describe('expiry marks in folders', () => {
  describeExpiryMarks(newPlace);

  it('are durable once they are written, and once they are removed', async () => {
    const { clock, disk, start } = await newPlace();
    const marks = start();
    const afterPowerCut = async () =>
      (await disk.powerCut('synced only').restart().list('/projects/a'))?.includes('expires-1');
    expect(await afterPowerCut()).toBe(false);
    await marks.mark('a');
    expect(await afterPowerCut()).toBe(true);
    clock.advance(SWEEP_INTERVAL_MS);
    const due = await marks.take();
    if (due !== undefined) await marks.unmark(due);
    expect(await afterPowerCut()).toBe(false);
  });
});
