import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { openAll, run, runUntilCrash, type Step, step } from '../../../testing/log-history.ts';
import { idsOf, LogWorld, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { readLogByHand } from '../../../testing/read-log-by-hand.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';

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

const RUNS = Number(process.env['CRASH_RUNS'] ?? 150);
const PROJECTS = 4;

beforeEach(() => recorder.uses.clear());

describe('the keys of a log', () => {
  it('never use a nonce twice, whatever fails, even if copies of the data folder are written to', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 8 }),
        fc.array(step, { minLength: 1, maxLength: 6 }),
        fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        fc.constantFrom('before' as const, 'after' as const),
        fc.constantFrom('crash' as const, 'storage_unavailable' as const, 'disk_full' as const),
        async (steps, more, where, when, what) => {
          const world = new LogWorld(PROJECTS);
          const disk = new SimulatedDisk(...world.directories());
          await run(world, disk, ofProjects(steps));
          const older = disk.powerCut('everything');
          disk.failAt({ operation: 1 + Math.floor(where * 40), when, what });
          await runUntilCrash(world, disk, ofProjects(more));
          // The process continues from its state, as do a clone of it and a restored older copy.
          for (const copy of [
            disk.restart(),
            disk.powerCut('everything'),
            disk.powerCut('synced only'),
            older,
          ])
            await runUntilCrash(world, copy, ofProjects(more));
          const twice = [...recorder.uses].filter(([, times]) => times > 1);
          expect(twice).toEqual([]);
        },
      ),
      { numRuns: RUNS, endOnFailure: true },
    );
    expect(recorder.uses.size).toBeGreaterThan(RUNS);
  });

  it('open all parts that a start without keys has found, by the byte tables alone', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 10 }),
        fc.integer({ min: 1, max: 60 }),
        fc.constantFrom('before' as const, 'after' as const),
        fc.constantFrom('crash' as const, 'storage_unavailable' as const),
        async (steps, operation, when, what) => {
          const world = new LogWorld(PROJECTS, { ...SMALL_LIMITS, segmentsMax: 100 });
          const disk = new SimulatedDisk(...world.directories());
          disk.failAt({ operation, when, what });
          // Without snapshots and carried parts, everything is in the log.
          const commits = ofProjects(steps).filter(({ kind }) => kind === 'commits' || kind === 'reopen');
          await runUntilCrash(world, disk, commits);
          const after = disk.powerCut('synced only');
          const [log, open] = await openAll(world, after);
          await Promise.all(open.map((one) => one.commit(world.newCommit(), 10)));
          const byHandle = new Map(world.projects.map((project) => [project.handle, project]));
          const files = [...after.files()].filter(([path]) => path.startsWith('/log/'));
          const parts = readLogByHand(
            files.map(([, bytes]) => bytes),
            world.storageId,
            (handle) => ({ dek: byHandle.get(handle)!.dek, project: byHandle.get(handle)!.name }),
          );
          for (const project of world.projects) {
            const ids: number[] = [];
            let chunks: Buffer[] = [];
            for (const { kind, chunks: count, plaintext } of parts.filter(
              ({ handle }) => handle === project.handle,
            )) {
              if (kind === 2) chunks.push(plaintext);
              else ids.push(...idsOf(Buffer.concat([...chunks.slice(chunks.length - count), plaintext])));
              if (kind !== 2) chunks = [];
            }
            expect((await world.contentOf(log, after, project)).ids).toEqual(ids);
          }
        },
      ),
      { numRuns: RUNS, endOnFailure: true },
    );
  });
});

/** Steps of a world with fewer projects. */
function ofProjects(steps: readonly Step[]): Step[] {
  return steps.map((one) => {
    if (one.kind === 'commits')
      return {
        ...one,
        commits: one.commits.map((given) => ({ ...given, project: given.project % PROJECTS })),
      };
    return one.kind === 'checkpoint' ? { ...one, project: one.project % PROJECTS } : one;
  });
}
