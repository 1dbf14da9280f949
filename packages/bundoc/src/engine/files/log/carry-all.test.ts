import { describe, expect, it } from 'vitest';
import { check, openAll } from '../../../testing/log-history.ts';
import { idsOf, LogWorld, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { openParts, PartReader, partsBehind } from './parts.ts';

const newDisk = (world: LogWorld) => new SimulatedDisk(...world.directories());

describe('carrying everything', () => {
  const world = () => new LogWorld(4, { ...SMALL_LIMITS, segmentsMax: 40 });

  it("moves all parts into the projects' folders and frees every segment, even after the next start", async () => {
    const here = world();
    const disk = newDisk(here);
    const [log, open] = await openAll(here, disk);
    for (let round = 0; round < 12; round++)
      await Promise.all(open.map((one, at) => one.commit(here.newCommit(), at === 0 ? 9_000 : 700)));
    await here.checkpoint(log, disk, open[1]!);
    await open[1]!.commit(here.newCommit(), 10);
    expect(log.stats.segmentsLive).toBeGreaterThan(2);
    expect((await log.carryAll(here.carryTarget(disk))).size).toBe(0);
    expect(log.stats).toMatchObject({ segmentsLive: 1, uncoveredBytes: 0 });
    expect(here.projects.map(({ handle }) => log.isUncovered(handle))).toEqual([false, false, false, false]);
    await check(here, log, disk);
    await log[Symbol.asyncDispose]();
    const cut = disk.powerCut('synced only');
    const again = await here.openLog(cut);
    expect(again.stats).toMatchObject({ segmentsLive: 0, uncoveredBytes: 0, handles: 4 });
    await check(here, again, cut);

    // Only the folders, beside another log.
    for (const project of here.projects.filter((_, at) => at !== 1)) {
      const files = [...cut.files()].filter(([path]) => path.startsWith(`${project.directory}/carried-`));
      await using reader = new PartReader(cut, new Map());
      const wanted = { handle: project.handle, newest: undefined, covered: undefined };
      const carried = files.map(([, bytes]) => bytes);
      const parts = partsBehind(reader, { ...wanted, carried });
      const ids: number[] = [];
      for await (const { plaintext } of openParts(project.name, Buffer.alloc(16), project.keys, parts))
        ids.push(...idsOf(plaintext));
      expect(ids).toEqual(project.given.map(({ id }) => id));
    }
  });

  it('waits for the frame in flight, delays new ones, and then lets waiting commits continue', async () => {
    const here = world();
    const disk = newDisk(here);
    const [log, open] = await openAll(here, disk);
    const commits = () => open.map((one, at) => one.commit(here.newCommit(), at === 0 ? 20_000 : 300));
    const before = commits();
    const carrying = log.carryAll(here.carryTarget(disk));
    const meanwhile = commits();
    await Promise.all([...before, carrying, ...meanwhile, log.carryOldest(here.carryTarget(disk))]);
    await Promise.all(commits());
    await check(here, log, disk);
    const cut = disk.powerCut('synced only');
    await check(here, await here.openLog(cut), cut);
  });

  it('sets aside the parts of a failing folder, and moves them back once it works', async () => {
    const here = world();
    const disk = newDisk(here);
    const [log, open] = await openAll(here, disk);
    for (let round = 0; round < 3; round++)
      await Promise.all(open.map((one) => one.commit(here.newCommit(), 700)));
    const failing = here.projects[2]!;
    const target = here.carryTarget(disk, (name) => name === failing.name);
    expect([...(await log.carryAll(target)).keys()]).toEqual([failing.handle]);
    expect([...(await log.carryAll(target)).keys()]).toEqual([failing.handle]);
    expect(log.stats).toMatchObject({ uncoveredBytes: 0, stuckHandles: 1 });
    expect((await log.carryAll(here.carryTarget(disk))).size).toBe(0);
    expect(log.stats.stuckHandles).toBe(0);
    await check(here, log, disk);
    const cut = disk.powerCut('synced only');
    await check(here, await here.openLog(cut), cut);
  });

  it('loses nothing when the process ends at any of its operations', async () => {
    const rehearse = async (operation: number | undefined) => {
      const here = new LogWorld(3);
      const disk = newDisk(here);
      const [log, open] = await openAll(here, disk);
      for (let round = 0; round < 4; round++)
        await Promise.all(open.map((one) => one.commit(here.newCommit(), 2_000)));
      const before = disk.operations;
      if (operation !== undefined) disk.failAt({ operation, when: 'after', what: 'crash' });
      const carrying = log.carryAll(here.carryTarget(disk));
      await Promise.race([carrying, disk.crashes]).catch(() => undefined);
      const cut = disk.powerCut('synced only');
      await check(here, await here.openLog(cut), cut);
      return disk.operations - before;
    };
    const operations = await rehearse(undefined);
    expect(operations).toBeGreaterThan(10);
    for (let operation = 1; operation <= operations; operation++) await rehearse(operation);
  });
});
