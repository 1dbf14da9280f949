import { describe, expect, it } from 'vitest';
import { LogWorld } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';

describe('Log', () => {
  it('gives back what was acknowledged, in order, for each project', async () => {
    const world = new LogWorld(5);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const open = await Promise.all(world.projects.map((project) => world.open(log, disk, project)));
    for (let round = 0; round < 12; round++)
      await Promise.all(open.map((one, at) => one.commit(world.newCommit(), at * 300 + round * 50)));
    await log[Symbol.asyncDispose]();
    const again = await world.openLog(disk.restart());
    for (const project of world.projects) {
      const { ids } = await world.contentOf(again, disk, project);
      expect(ids).toEqual(project.given.map(({ id }) => id));
    }
    expect(log.stats).toMatchObject({ frames: 12, commits: 60 });
  });

  it('splits a large commit into chunks that count with the last of them', async () => {
    const world = new LogWorld(2);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const [a, b] = [
      await world.open(log, disk, world.projects[0]!),
      await world.open(log, disk, world.projects[1]!),
    ];
    await Promise.all([a.commit(world.newCommit(), 10), b.commit(world.newCommit(), 10)]);
    await Promise.all([
      a.commit(world.newCommit(), 30_000),
      a.commit(world.newCommit(), 100),
      b.commit(world.newCommit(), 100),
    ]);
    await log[Symbol.asyncDispose]();
    const again = await world.openLog(disk.powerCut('synced only'));
    for (const project of world.projects)
      expect((await world.contentOf(again, disk, project)).ids).toEqual(project.given.map(({ id }) => id));
  });
});
