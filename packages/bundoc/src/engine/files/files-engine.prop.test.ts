import { randomInt } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { isOfTheDead } from '../../testing/engine-process.ts';
import { type EngineStep, engineStep } from '../../testing/engine-steps.ts';
import { EngineWorld } from '../../testing/engine-world.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';

const recorder = vi.hoisted(() => ({ uses: new Map<string, number>() }));

vi.mock('node:crypto', async (original) => {
  const crypto = await original<typeof import('node:crypto')>();
  return {
    ...crypto,
    createCipheriv: (...args: Parameters<typeof crypto.createCipheriv>) => {
      const [, key, nonce] = args as unknown as [string, import('node:crypto').KeyObject, Buffer];
      const use = `${key.export().toString('hex')} ${nonce.toString('hex')}`;
      recorder.uses.set(use, (recorder.uses.get(use) ?? 0) + 1);
      return crypto.createCipheriv(...args);
    },
  };
});

/**
 * A second takes ten milliseconds, but a limit of several seconds takes one. The timers of a dead process
 * never end.
 *
 * Time is counted in turns of the event loop, of a millisecond or more: while the machine stalls, limits do
 * not pass either.
 */
const FASTER = 100;
const LIMIT_MS = 5_000;
vi.mock('node:timers/promises', async (original) => {
  const timers = await original<typeof import('node:timers/promises')>();
  return {
    ...timers,
    setTimeout: async <T>(ms: number, value: T, options?: object): Promise<T> => {
      for (let turns = ms < LIMIT_MS ? ms / FASTER : 1_000; turns > 0; turns--)
        await timers.setTimeout(Math.min(1, turns), undefined, options);
      return isOfTheDead() ? new Promise<T>(() => undefined) : value;
    },
  };
});

vi.stubGlobal('setTimeout', (task: () => void, ms: number) => {
  let turns = ms / FASTER;
  const timer = setInterval(() => {
    if (--turns > 0) return;
    clearInterval(timer);
    if (!isOfTheDead()) task();
  }, 1);
  return timer;
});

const RUNS = Number(process.env['CRASH_RUNS'] ?? runs(25, 4_000));
const SEED = Number(process.env['CRASH_SEED'] ?? randomInt(1, 2_147_483_646));
/** Also bounds the search for a smaller counterexample: each run takes a tenth of a second. */
const RUN = {
  ...(process.env['CRASH_PATH'] === undefined ? {} : { path: process.env['CRASH_PATH'], endOnFailure: true }),
  numRuns: RUNS,
  seed: SEED,
  interruptAfterTimeLimit: runs(40_000, 300_000),
};
const steps = fc.array(engineStep, { minLength: 4, maxLength: 24 });

beforeEach(() => {
  recorder.uses.clear();
  process.stdout.write(`files engine: CRASH_SEED=${SEED}\n`);
});

function newDisk(sectorBytes: number): SimulatedDisk {
  const disk = new SimulatedDisk('/', '/projects');
  disk.sectorBytes = sectorBytes;
  return disk;
}

async function whole(all: readonly EngineStep[], sectorBytes: number) {
  const world = new EngineWorld();
  const disk = newDisk(sectorBytes);
  world.boot(disk);
  await world.until(async () => {
    await world.start();
    await world.run(all);
    await world.check();
    await world.stop();
  });
  return { world, disk };
}

describe('a data folder of many projects', () => {
  it('serves each project its acknowledged commits while folders, the log and the disk fail', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        recorder.uses.clear();
        const { world, disk } = await whole(all, 512);
        world.boot(disk.restart());
        await world.until(async () => {
          await world.start();
          world.fix(await world.check());
          await world.stop();
        });
        expect([...recorder.uses].filter(([, times]) => times > 1)).toEqual([]);
      }),
      RUN,
    );
  });

  it.each([512, 4_096] as const)(
    'has every acknowledged commit and no refused one after two crashes, started with or without keys (writes tear at %i bytes)',
    async (sectorBytes) => {
      await fc.assert(
        fc.asyncProperty(
          steps,
          fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
          fc.constantFrom('before' as const, 'after' as const),
          fc.integer({ min: 1, max: 2_147_483_646 }),
          fc.constantFrom('synced only' as const, 'everything' as const, 'random' as const),
          fc.array(fc.constantFrom('power cut' as const, 'kill -9' as const), { minLength: 3, maxLength: 3 }),
          steps,
          async (all, where, when, seed, mode, ends, more) => {
            recorder.uses.clear();
            let state = seed;
            const random = () => {
              state = (state * 48_271) % 2_147_483_647;
              return state / 2_147_483_647;
            };
            const survival = mode === 'random' ? { random } : mode;
            const endings = [...ends];
            const after = (ended: SimulatedDisk) =>
              endings.pop() === 'kill -9' ? ended.restart() : ended.powerCut(survival);
            // After a failed sync, later ones report nothing: the project notices it, but a start does not.
            const calm = all.filter(({ kind }) => kind !== 'folder fails');
            const { disk: rehearsed } = await whole(calm, sectorBytes);

            const world = new EngineWorld();
            const disk = newDisk(sectorBytes);
            disk.failAt({ operation: 1 + Math.floor(where * rehearsed.operations), when, what: 'crash' });
            world.boot(disk);
            await world.until(async () => {
              await world.start();
              await world.run(calm);
              await world.stop();
            });
            const older = { world: world.fork(), disk: disk.powerCut('everything') };

            const second = after(disk);
            second.failAt({ operation: 1 + Math.floor(random() * 60), when, what: 'crash' });
            world.boot(second);
            await world.until(async () => {
              await world.start();
              await world.checkpointAll();
              await world.engine.carryAll();
              await world.stop();
            });

            const third = after(second);
            // A start without keys carries what a start with keys replays.
            const keyless = world.fork();
            keyless.boot(third.powerCut('everything'));
            let withoutKeys: ReadonlyMap<string, unknown> = new Map();
            await keyless.until(async () => {
              await keyless.start();
              await keyless.engine.carryAll();
              await keyless.stop();
              await keyless.start();
              withoutKeys = await keyless.check();
              await keyless.stop();
            });
            world.boot(third);
            await world.until(async () => {
              await world.start();
              const withKeys = await world.check();
              expect(withKeys).toEqual(withoutKeys);
              world.fix(withKeys);
              await world.run(more.slice(0, 6));
              world.fix(await world.check());
            });

            const fourth = after(third);
            world.boot(fourth);
            await world.until(async () => {
              await world.start();
              world.fix(await world.check());
              await world.stop();
            });
            const last = fourth.powerCut(survival);
            world.boot(last);
            await world.until(async () => {
              await world.start();
              await world.check();
              await world.stop();
            });

            // An older copy of the whole data folder is written to as well, with the same keys.
            older.world.boot(older.disk);
            await older.world.until(async () => {
              await older.world.start();
              older.world.fix(await older.world.check());
              await older.world.run(more.slice(0, 6));
              await older.world.check();
              await older.world.stop();
            });
            expect([...recorder.uses].filter(([, times]) => times > 1)).toEqual([]);
          },
        ),
        RUN,
      );
    },
  );
});
