import { randomInt } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { LONG, runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { contentOf, type Model, sorted } from '../../testing/engine-project.ts';
import { type EngineStep, engineStep } from '../../testing/engine-steps.ts';
import { EngineWorld } from '../../testing/engine-world.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { LogDamaged } from './log/scan.ts';

const RUNS = Number(process.env['CRASH_RUNS'] ?? runs(20, 1_000));
const SEED = Number(process.env['CRASH_SEED'] ?? randomInt(1, 2_147_483_646));
const RUN = { numRuns: RUNS, seed: SEED, interruptAfterTimeLimit: runs(60_000, 3_600_000) };

beforeEach(() => {
  process.stdout.write(`older copies: CRASH_SEED=${SEED}\n`);
});

/** Without slow and unrelated steps. */
const KINDS: ReadonlySet<EngineStep['kind']> = new Set<EngineStep['kind']>([
  ...(['commits', 'checkpoint', 'checkpoint beside', 'close'] as const),
  ...(['away and back', 'rotate', 'restart', 'carry all'] as const),
]);
const steps = fc.array(
  engineStep.filter(({ kind }) => KINDS.has(kind)),
  { minLength: 3, maxLength: 14 },
);

/** An unused data folder, and the content of its projects. */
interface Copy {
  readonly disk: SimulatedDisk;
  readonly contents: ReadonlyMap<string, Model>;
}

async function made(world: EngineWorld, on: SimulatedDisk, all: readonly EngineStep[]): Promise<Copy> {
  let contents: ReadonlyMap<string, Model> = new Map();
  world.boot(on);
  await world.until(async () => {
    await world.start();
    await world.run(all);
    contents = await world.check();
    await world.stop();
  });
  return { disk: on.powerCut('everything'), contents };
}

/** The content of a project, or its error. */
async function outcomeOf(world: EngineWorld, at: number): Promise<Model | AppError> {
  try {
    return await contentOf(await world.open(world.projects[at]!));
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
}

/** Requires that every other project has its content. @returns the outcome of this one. */
async function othersHaveAll(
  world: EngineWorld,
  now: SimulatedDisk,
  contents: Copy['contents'],
  at: number,
): Promise<Model | AppError> {
  let result: Model | AppError | undefined;
  world.boot(now);
  await world.until(async () => {
    await world.start();
    await world.engine.scanned;
    const outcome = await outcomeOf(world, at);
    for (const [other, project] of world.projects.entries())
      if (other !== at)
        expect(await outcomeOf(world, other), project.name).toEqual(contents.get(project.name));
    result = outcome;
    await world.stop();
  });
  if (result === undefined) throw new Error('the process has died');
  return result;
}

const isDamage = (outcome: Model | AppError) =>
  outcome instanceof AppError && /^(project_damaged|integrity_error)$/.test(outcome.code);

/** Makes a folder equal to that of another disk. */
async function putBack(to: SimulatedDisk, from: ReadonlyMap<string, Buffer>, folder: string): Promise<void> {
  for (const path of [...to.files().keys()]) if (path.startsWith(`${folder}/`)) to.tamper(path, undefined);
  for (const part of ['docs', 'carried']) await to.makeDirectory(`${folder}/${part}`);
  await to.syncDirectory(folder);
  for (const [path, bytes] of from) if (path.startsWith(`${folder}/`)) to.tamper(path, bytes);
}

describe('a file that is restored to an older state, or removed', () => {
  it('is reported as damage, prevents the start, or gives the current state, without harm to other projects', async () => {
    const seen = { damaged: 0, present: 0 };
    await fc.assert(
      fc.asyncProperty(steps, steps, fc.nat(7), async (first, second, at) => {
        const world = new EngineWorld();
        const older = await made(world, new SimulatedDisk('/', '/projects'), first);
        world.fix(older.contents);
        const olderWorld = world.fork();
        const newer = await made(world, older.disk.powerCut('everything'), second);
        world.fix(newer.contents);
        const { name } = world.projects[at]!;
        const before = older.contents.get(name)!;
        const now = newer.contents.get(name)!;

        // A folder that is put back as it is.
        const same = newer.disk.powerCut('everything');
        await putBack(same, newer.disk.files(), `/projects/${name}`);
        expect(await othersHaveAll(world.fork(), same, newer.contents, at)).toEqual(now);

        // The folder of one project.
        const mixed = newer.disk.powerCut('everything');
        await putBack(mixed, older.disk.files(), `/projects/${name}`);
        const outcome = await othersHaveAll(world.fork(), mixed, newer.contents, at);
        if (isDamage(outcome)) seen.damaged++;
        else {
          expect(sorted(outcome as Model)).toBe(sorted(now));
          seen.present++;
        }

        // The whole data folder: everything is as it was.
        const whole = older.disk.powerCut('everything');
        const asBefore = await othersHaveAll(olderWorld, whole, older.contents, at);
        expect(asBefore).toEqual(before);

        // Without the log.
        const logless = newer.disk.powerCut('everything');
        for (const path of [...logless.files().keys()])
          if (path.startsWith('/log/')) logless.tamper(path, undefined);
        const bereft = world.fork();
        bereft.boot(logless);
        await bereft.until(() => expect(bereft.start()).rejects.toThrow(LogDamaged));

        // Without a file of carried parts: only its project misses it, unless its catalog covers the file.
        const carried = [...newer.disk.files().keys()].find((path) => path.includes('/carried/'));
        if (carried === undefined) return;
        const without = newer.disk.powerCut('everything');
        without.tamper(carried, undefined);
        const of = world.projects.findIndex(({ directory }) => carried.startsWith(`${directory}/`));
        const missing = await othersHaveAll(world.fork(), without, newer.contents, of);
        if (isDamage(missing)) seen.damaged++;
        else expect(missing).toEqual(newer.contents.get(world.projects[of]!.name));
      }),
      RUN,
    );
    process.stdout.write(`older copies: ${JSON.stringify(seen)}\n`);
    expect(seen.damaged).toBeGreaterThan(0);
    // About one in a hundred: a short run may see none.
    if (LONG) expect(seen.present).toBeGreaterThan(0);
  });
});
