import { describe, expect, it } from 'vitest';
import { EngineWorld } from '../../../testing/engine-world.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';

/** Of the world's log, which has 10 segments of 64 KiB at most. */
const SEGMENTS_MAX = 10;

async function written(keepFrom: number | undefined, megabytes: number) {
  const world = new EngineWorld();
  const disk = new SimulatedDisk('/', '/projects');
  world.keepFrom = keepFrom;
  world.boot(disk);
  await world.start();
  const refused: unknown[] = [];
  let filesMost = 0;
  for (let round = 0; round < megabytes * 10; round++) {
    const all = world.projects.map((one) => ({ one, ops: [{ id: 'a', pad: 12_500 }] }));
    for (const outcome of await world.commitAll(all))
      if (outcome.status === 'rejected') refused.push(outcome.reason);
    const files = (await disk.list('/log'))?.filter((name) => /^\d+$/.test(name)).length ?? 0;
    filesMost = Math.max(filesMost, files);
  }
  const { segments } = world.engine.logEnd(0);
  await world.stop();
  return { refused, filesMost, first: segments[0]?.number ?? 0 };
}

describe('a log whose archive is away', () => {
  it('refuses no write, and takes at most half of its size more', async () => {
    const { refused, filesMost } = await written(0, 3);
    expect(refused).toEqual([]);
    expect(filesMost).toBeGreaterThan(SEGMENTS_MAX);
    expect(filesMost).toBeLessThanOrEqual(SEGMENTS_MAX * 1.5 + 1);
  });

  it('keeps what the archive lacks as long as that fits', async () => {
    expect((await written(0, 0.3)).first).toBe(1);
    expect((await written(undefined, 0.5)).first).toBeGreaterThan(1);
  });

  it('gives all of it up beyond that', async () => {
    expect((await written(0, 3)).first).toBeGreaterThan(1);
  });
});
