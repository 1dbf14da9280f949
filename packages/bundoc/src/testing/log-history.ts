import { AppError } from '@bundoc/shared/contract/app-error';
import fc from 'fast-check';
import { expect } from 'vitest';
import type { Log } from '../engine/files/log/log.ts';
import type { LogProject, LogWorld, OpenLogProject } from './log-projects.ts';
import { Crash, type SimulatedDisk } from './simulated-disk.ts';

/** Commits that are given at once, and what happens between such groups. */
export type Step =
  | { readonly kind: 'commits'; readonly commits: readonly Given[] }
  | { readonly kind: 'checkpoint'; readonly project: number }
  | { readonly kind: 'free' | 'free beside' | 'carry all' | 'reopen' };
interface Given {
  readonly project: number;
  readonly bytes: number;
}

export const PROJECTS = 5;
const commit = fc.record({
  project: fc.integer({ min: 0, max: PROJECTS - 1 }),
  bytes: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
    { weight: 1, arbitrary: fc.integer({ min: 4_000, max: 20_000 }) },
  ),
});
export const step: fc.Arbitrary<Step> = fc.oneof(
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
  { weight: 1, arbitrary: fc.constant({ kind: 'carry all' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' } as const) },
);

export async function openAll(world: LogWorld, disk: SimulatedDisk): Promise<[Log, OpenLogProject[]]> {
  const log = await world.openLog(disk);
  const open: OpenLogProject[] = [];
  for (const project of world.projects) open.push(await world.open(log, disk, project));
  return [log, open];
}

export async function run(world: LogWorld, disk: SimulatedDisk, steps: readonly Step[]): Promise<void> {
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
        log.carryOldest(world.carryTarget(disk)).catch(() => undefined);
        break;
      case 'carry all':
        await log.carryAll(world.carryTarget(disk));
        expect(log.stats.uncoveredBytes).toBe(0);
        break;
      case 'reopen':
        await log[Symbol.asyncDispose]();
        [log, open] = await openAll(world, disk);
        break;
    }
  }
  await log[Symbol.asyncDispose]();
}

/**
 * Requires that each project has its commits in order, with all acknowledged ones and without refused ones.
 */
export async function check(
  world: LogWorld,
  log: Log,
  disk: SimulatedDisk,
): Promise<Map<LogProject, number[]>> {
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

/**
 * Records the commits that were read. Those of unknown fate that were found count as acknowledged from now
 * on.
 */
export function fix(contents: ReadonlyMap<LogProject, readonly number[]>): void {
  for (const [project, ids] of contents)
    for (const given of project.given)
      if (given.fate !== 'acknowledged') given.fate = ids.includes(given.id) ? 'acknowledged' : 'refused';
}

/** Runs steps until a crash. Steps that are running then never settle, and are abandoned. */
export async function runUntilCrash(
  world: LogWorld,
  disk: SimulatedDisk,
  steps: readonly Step[],
): Promise<void> {
  const running = run(world, disk, steps);
  await Promise.race([running, disk.crashes]).catch((error: unknown) => {
    if (!(error instanceof Crash) && !(error instanceof AppError)) throw error;
  });
}
