import { AppError } from '@bundoc/shared/errors';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type LogProject, LogWorld, type OpenLogProject } from '../../../testing/log-projects.ts';
import { Crash, type Fault, SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { Log } from './log.ts';

/** Commits that are given at once, and what happens between such groups. */
type Step =
  | { readonly kind: 'commits'; readonly commits: readonly Given[] }
  | { readonly kind: 'checkpoint'; readonly project: number }
  | { readonly kind: 'free' | 'free beside' | 'reopen' };
interface Given {
  readonly project: number;
  readonly bytes: number;
}

const PROJECTS = 5;
const commit = fc.record({
  project: fc.integer({ min: 0, max: PROJECTS - 1 }),
  bytes: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 4_000, max: 20_000 }) },
  ),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 7,
    arbitrary: fc
      .array(commit, { minLength: 1, maxLength: 8 })
      .map((commits) => ({ kind: 'commits', commits }) as const),
  },
  {
    weight: 2,
    arbitrary: fc
      .integer({ min: 0, max: PROJECTS - 1 })
      .map((project) => ({ kind: 'checkpoint', project }) as const),
  },
  { weight: 1, arbitrary: fc.constantFrom({ kind: 'free' } as const, { kind: 'free beside' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' } as const) },
);

async function openAll(world: LogWorld, disk: SimulatedDisk): Promise<[Log, OpenLogProject[]]> {
  const log = await world.openLog(disk);
  const open: OpenLogProject[] = [];
  for (const project of world.projects) open.push(await world.open(log, disk, project));
  return [log, open];
}

async function run(world: LogWorld, disk: SimulatedDisk, steps: readonly Step[]): Promise<void> {
  let [log, open] = await openAll(world, disk);
  for (const current of steps) {
    switch (current.kind) {
      case 'commits': {
        const answers = current.commits.map(({ project, bytes }) =>
          (open[project] as OpenLogProject).commit(world.newCommit(), bytes),
        );
        for (const answer of await Promise.allSettled(answers))
          if (answer.status === 'rejected') expect(answer.reason).toBeInstanceOf(AppError);
        break;
      }
      case 'checkpoint':
        await world.checkpoint(log, disk, open[current.project] as OpenLogProject);
        break;
      case 'free':
        await log.carryOldest(world.carryTarget(disk));
        break;
      case 'free beside':
        if (!log.isCarrying) log.carryOldest(world.carryTarget(disk)).catch(() => undefined);
        break;
      case 'reopen':
        await log[Symbol.asyncDispose]();
        [log, open] = await openAll(world, disk);
        break;
    }
  }
  await log[Symbol.asyncDispose]();
}

/** What each project has is what it was given, in order; with all that was acknowledged, and nothing that was refused. */
async function check(world: LogWorld, log: Log, disk: SimulatedDisk): Promise<Map<LogProject, number[]>> {
  const contents = new Map<LogProject, number[]>();
  for (const project of world.projects) {
    const { ids } = await world.contentOf(log, disk, project);
    const has = new Set(ids);
    const expected = project.given.filter(
      ({ id, fate }) => fate === 'acknowledged' || (has.has(id) && fate !== 'refused'),
    );
    expect(ids).toEqual(expected.map(({ id }) => id));
    contents.set(project, ids);
  }
  return contents;
}

/** What was seen once stays: what was waiting when the process ended, and is there, counts as acknowledged from now on. */
function fix(contents: ReadonlyMap<LogProject, readonly number[]>): void {
  for (const [project, ids] of contents)
    for (const given of project.given)
      if (given.fate !== 'acknowledged') given.fate = ids.includes(given.id) ? 'acknowledged' : 'refused';
}

const RUNS = Number(process.env['CRASH_RUNS'] ?? 400);

describe('a log of many projects with a crash in its history', () => {
  it.each([512, 4_096] as const)(
    'keeps what was acknowledged and nothing that was refused, crashing again while it recovers (writes tear at %i bytes)',
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

            // Recovery crashes at a random operation, then is left in peace.
            const second = after(disk);
            second.failAt({ operation: 1 + Math.floor(random() * 16), when, what: 'crash' });
            await runUntilCrash(world, second, [{ kind: 'free' }]);
            const third = after(second);
            const [log, open] = await openAll(world, third);
            fix(await check(world, log, third));

            // It continues, frees what it can, and everything is there after one more end, and at last a power cut.
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

/** Nothing that is under way settles after a crash, so its steps are left behind. */
async function runUntilCrash(world: LogWorld, disk: SimulatedDisk, steps: readonly Step[]): Promise<void> {
  const running = run(world, disk, steps);
  await Promise.race([running, disk.crashes]).catch((error: unknown) => {
    if (!(error instanceof Crash) && !(error instanceof AppError)) throw error;
  });
}
