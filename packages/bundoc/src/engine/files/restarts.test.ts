import { expect, it } from 'vitest';
import { CliProject } from '../../testing/cli-project.ts';
import { closeEngine, engineOn, SMALL_LIMITS } from '../../testing/test-engine.ts';
import { put, ref } from '../../testing/writes.ts';

it('a data folder that is opened 100 times uses no more of the log than after the first openings', async () => {
  const disk = CliProject.disk();
  const limits = { ...SMALL_LIMITS, log: { ...SMALL_LIMITS.log, segmentsMax: 16 } };
  await engineOn(disk, { limits });
  const projects = Array.from({ length: 30 }, (_, at) => new CliProject(`p${at}`));
  for (const project of projects) {
    const store = await project.open(disk);
    await store.commit([put('a', '{"v":1}')]);
    await store[Symbol.asyncDispose]();
  }
  await closeEngine(disk);
  const segments = () => [...disk.files().keys()].filter((path) => /^\/log\/\d{8}$/.test(path)).length;
  const seen: [number, number][] = [];
  for (let restart = 0; restart < 100; restart++) {
    const engine = await engineOn(disk, { limits });
    await engine.scanned;
    if (restart % 10 === 9) {
      const store = await projects[restart % 30]!.open(disk);
      await store.commit([put(`r${restart}`, '{"v":1}')]);
      await store[Symbol.asyncDispose]();
    }
    seen.push([segments(), engine.stats.segmentsLive]);
    await closeEngine(disk);
  }
  const most = (of: 0 | 1, from: number, to: number) =>
    Math.max(...seen.slice(from, to).map((state) => state[of]));
  // A segment for each start that writes, until several are sparse; then they are freed and reused.
  expect(most(1, 0, 100)).toBeLessThanOrEqual(6);
  expect(most(0, 50, 100)).toBe(most(0, 0, 50));
  expect(most(0, 0, 100)).toBeLessThanOrEqual(8);
  for (const project of projects) {
    const store = await project.open(disk);
    expect(await store.get(ref('a'))).toBeDefined();
    await store[Symbol.asyncDispose]();
  }
});
