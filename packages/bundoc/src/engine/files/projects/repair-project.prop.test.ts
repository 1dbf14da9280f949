import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CliProject } from '../../../testing/cli-project.ts';
import { flip, framesOn } from '../../../testing/log-frames.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { closeEngine } from '../../../testing/test-engine.ts';
import { put, remove } from '../../../testing/writes.ts';
import type { FileStore } from '../store/file-store.ts';

const IDS = ['a', 'b', 'c', 'd', 'e', 'f'];
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      id: fc.constantFrom(...IDS),
      pad: fc.option(fc.integer({ min: 0, max: 3_000 }), { nil: undefined, freq: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant('checkpoint' as const) },
  { weight: 1, arbitrary: fc.constant('reopen' as const) },
);

let counter = 0;

async function run(
  project: CliProject,
  disk: SimulatedDisk,
  steps: readonly (typeof step extends fc.Arbitrary<infer S> ? S : never)[],
) {
  let store = await project.open(disk);
  for (const current of steps) {
    if (current === 'checkpoint') await store.checkpoint();
    else if (current === 'reopen') {
      await close(disk, store);
      store = await project.open(disk);
    } else {
      const { id, pad } = current;
      const write = pad === undefined ? remove(id) : put(id, `{"v":${++counter},"pad":"${'x'.repeat(pad)}"}`);
      await store.commit([write]).catch((error: unknown) => {
        if (!String(error).includes('document_not_found')) throw error;
      });
    }
  }
  await close(disk, store);
}

async function close(disk: SimulatedDisk, store: FileStore): Promise<void> {
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
}

async function documentsOf(store: FileStore): Promise<string[]> {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1e9 });
  return documents.map(({ text }) => text.toString()).sort();
}

const RUNS = Number(process.env['CRASH_RUNS'] ?? runs(80, 400));

describe('a project whose catalog is lost after any history and power cut', () => {
  it('was intact before, is rebuilt with the same documents, and reuses no sequence number', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer({ min: 1, max: 2_147_483_646 }),
        fc.constantFrom('synced only' as const, 'everything' as const, 'random' as const),
        async (steps, where, seed, mode) => {
          let state = seed;
          const random = () => {
            state = (state * 48_271) % 2_147_483_647;
            return state / 2_147_483_647;
          };
          const project = new CliProject();
          const made = CliProject.disk();
          await close(made, await project.open(made));
          const whole = made.powerCut('everything');
          await run(project, whole, steps);

          const disk = made.powerCut('everything');
          disk.failAt({ operation: 1 + Math.floor(where * whole.operations), when: 'after', what: 'crash' });
          await Promise.race([run(project, disk, steps), disk.crashes]).catch(() => undefined);
          const cut = disk.powerCut(mode === 'random' ? { random } : mode);
          expect(await project.findings(cut)).toEqual([]);

          const untouched = await project.open(cut.powerCut('everything'));
          const expected = await documentsOf(untouched);
          const last = (await untouched.changes(0, 100)).position;

          if (cut.files().has('/projects/p/catalog')) cut.tamper('/projects/p/catalog', Buffer.from('gone'));
          await project.repair(cut);
          expect(await project.findings(cut)).toEqual([]);
          const store = await project.open(cut);
          expect(await documentsOf(store)).toEqual(expected);
          const rebuilt = await store.changes(0, 100);
          expect(await store.position()).toBeGreaterThanOrEqual(last);
          await store.commit([put('new', '{}')]);
          const next = await store.changes(rebuilt.position, 100, rebuilt.horizon);
          expect(next.changes).toMatchObject([{ ref: { id: 'new' } }]);
          await close(cut, store);
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
  });
});

describe('a project in a log with damage anywhere', () => {
  it('loses nothing without --accept-loss, and is intact and opens after a repair with it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 4, maxLength: 30 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        async (steps, places, withoutCatalog) => {
          const project = new CliProject();
          const disk = CliProject.disk();
          await run(project, disk, steps);
          const before = await project.open(disk.powerCut('everything'));
          const expected = await documentsOf(before);
          const frames = framesOn(disk);
          // A history of removals alone writes none.
          fc.pre(frames.length > 0);
          for (const place of places) {
            const { path, frame, lastByte } = frames[place % frames.length] as (typeof frames)[number];
            const start = frame * 4_096;
            flip(disk, path, start + ((place >>> 8) % (lastByte + 1 - start)));
          }
          if (withoutCatalog) disk.tamper('/projects/p/catalog', undefined);
          const unforced = disk.powerCut('everything');
          const isRefused = await project.repair(unforced).then(
            () => false,
            () => true,
          );
          if (!isRefused) {
            const store = await project.open(unforced);
            expect(await documentsOf(store)).toEqual(expected);
            await close(unforced, store);
          }
          const { faults } = await project.repair(disk, true);
          expect(faults.length > 0 || !isRefused).toBe(true);
          expect(await project.findings(disk)).toEqual([]);
          const store = await project.open(disk);
          await store.commit([put('new', '{}')]);
          await close(disk, store);
          const again = disk.powerCut('synced only');
          const reopened = await project.open(again);
          expect((await documentsOf(reopened)).join()).toContain('"new"');
          await close(again, reopened);
          expect((await project.repair(disk)).faults).toEqual([]);
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
  });
});
