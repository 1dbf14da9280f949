import fc from 'fast-check';
import { describe, it } from 'vitest';
import { check, fix, openAll, PROJECTS, run, runUntilCrash, step } from '../../../testing/log-history.ts';
import { LogWorld } from '../../../testing/log-projects.ts';
import { type Fault, SimulatedDisk } from '../../../testing/simulated-disk.ts';

const RUNS = Number(process.env['CRASH_RUNS'] ?? 250);

describe('a log of many projects with a crash in its history', () => {
  it.each([512, 4_096] as const)(
    'keeps every acknowledged commit and no refused one, with further crashes during recovery (writes tear at %i bytes)',
    async (sectorBytes) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { minLength: 1, maxLength: 14 }),
          fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
          fc.constantFrom('before' as const, 'after' as const),
          fc.integer({ min: 1, max: 2_147_483_646 }),
          fc.constantFrom(
            'synced only' as const,
            'everything' as const,
            'random' as const,
            'random' as const,
          ),
          fc.constantFrom<Fault['what']>('crash', 'crash', 'storage_unavailable'),
          fc.array(fc.constantFrom('power cut' as const, 'kill -9' as const), { minLength: 4, maxLength: 4 }),
          async (steps, where, when, seed, mode, what, ends) => {
            let state = seed;
            const random = () => {
              state = (state * 48_271) % 2_147_483_647;
              return state / 2_147_483_647;
            };
            const survival = mode === 'random' ? { random } : mode;
            const endings = [...ends];
            const after = (ended: SimulatedDisk) =>
              endings.pop() === 'kill -9' ? ended.restart() : ended.powerCut(survival);
            const newDisk = (world: LogWorld) => {
              const disk = new SimulatedDisk(...world.directories());
              disk.sectorBytes = sectorBytes;
              return disk;
            };

            const rehearsal = new LogWorld(PROJECTS);
            const whole = newDisk(rehearsal);
            await run(rehearsal, whole, steps);

            const world = new LogWorld(PROJECTS);
            const disk = newDisk(world);
            disk.failAt({ operation: 1 + Math.floor(where * whole.operations), when, what });
            await runUntilCrash(world, disk, steps);

            // Recovery crashes at a random operation, and then runs undisturbed.
            const second = after(disk);
            second.failAt({ operation: 1 + Math.floor(random() * 16), when, what: 'crash' });
            await runUntilCrash(world, second, [{ kind: 'free' }]);
            const third = after(second);
            const [log, open] = await openAll(world, third);
            fix(await check(world, log, third));

            // The log continues and frees segments. Everything is there after one more end and finally a
            // power cut.
            await Promise.all(open.map((one) => one.commit(world.newCommit(), 100)));
            await log.carryOldest(world.carryTarget(third));
            const fourth = after(third);
            const last = await world.openLog(fourth);
            fix(await check(world, last, fourth));
            const fifth = fourth.powerCut(survival);
            await check(world, await world.openLog(fifth), fifth);
          },
        ),
        { numRuns: RUNS, endOnFailure: false },
      );
    },
  );
});
