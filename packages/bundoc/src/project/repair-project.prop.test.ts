import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { put, remove } from '../storage/conformance.ts';
import type { EmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { CliProject } from '../testing/cli-project.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import { repairProject } from './repair-project.ts';
import { verifyProject } from './verify-project.ts';

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
      await store[Symbol.asyncDispose]();
      store = await project.open(disk);
    } else {
      const { id, pad } = current;
      const write = pad === undefined ? remove(id) : put(id, `{"v":${++counter},"pad":"${'x'.repeat(pad)}"}`);
      await store.commit([write]).catch((error: unknown) => {
        if (!String(error).includes('document_not_found')) throw error;
      });
    }
  }
  await store[Symbol.asyncDispose]();
}

async function documentsOf(store: EmbeddedStore): Promise<string[]> {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1e9 });
  return documents.map(({ text }) => text.toString()).sort();
}

const RUNS = Number(process.env['CRASH_RUNS'] ?? 400);

describe('a project whose catalog is gone after any history and power cut', () => {
  it('verifies as whole before, is rebuilt to the same documents, and gives no sequence number again', async () => {
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
          await (await project.open(made))[Symbol.asyncDispose]();
          const whole = made.powerCut('everything');
          await run(project, whole, steps);

          const disk = made.powerCut('everything');
          disk.failAt({ operation: 1 + Math.floor(where * whole.operations), when: 'after', what: 'crash' });
          await run(project, disk, steps).catch(() => undefined);
          const cut = disk.powerCut(mode === 'random' ? { random } : mode);
          const check = (at: SimulatedDisk) => verifyProject(project.place(at), () => undefined);
          expect((await check(cut)).findings).toEqual([]);

          const untouched = await project.open(cut.powerCut('everything'));
          const expected = await documentsOf(untouched);
          const last = (await untouched.changes(0, 100)).position;

          cut.tamper('/projects/p/catalog', undefined);
          await repairProject(project.place(cut), {
            clock: project.clock,
            acceptLoss: false,
            onProgress: () => undefined,
          });
          expect((await check(cut)).findings).toEqual([]);
          const store = await project.open(cut);
          expect(await documentsOf(store)).toEqual(expected);
          const rebuilt = (await store.changes(0, 100)).position;
          expect(rebuilt).toBeGreaterThanOrEqual(last);
          await store.commit([put('new', '{}')]);
          expect((await store.changes(rebuilt, 100)).changes).toMatchObject([{ ref: { id: 'new' } }]);
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
  });
});

describe('a project whose journal was damaged anywhere', () => {
  it('is repaired with --accept-loss so that it verifies and goes on, or was never in need of it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 4, maxLength: 30 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        async (steps, places, withoutCatalog) => {
          const project = new CliProject();
          const disk = CliProject.disk();
          await run(project, disk, steps);
          const segments = [...disk.files()].filter(([path]) => path.startsWith('/projects/p/journal/'));
          for (const place of places) {
            const [path, bytes] = segments[place % segments.length] ?? [];
            if (path === undefined || bytes === undefined) return;
            bytes[(place >>> 8) % bytes.length] = ((bytes[(place >>> 8) % bytes.length] as number) + 1) % 256;
            disk.tamper(path, bytes);
          }
          if (withoutCatalog) disk.tamper('/projects/p/catalog', undefined);
          const options = { clock: project.clock, acceptLoss: true, onProgress: () => undefined };
          const { faults } = await repairProject(project.place(disk), options);
          // Damage to the last frame cannot be told from a torn one, which was never acknowledged: there is nothing to repair.
          if (faults.length === 0) return;
          const { findings } = await verifyProject(project.place(disk), () => undefined);
          expect(findings).toEqual([]);
          const store = await project.open(disk);
          await store.commit([put('new', '{}')]);
          await store[Symbol.asyncDispose]();
          const again = await project.open(disk.powerCut('synced only'));
          expect((await documentsOf(again)).join()).toContain('"new"');
          expect(
            (await repairProject(project.place(disk), { ...options, acceptLoss: false })).faults,
          ).toEqual([]);
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
  });
});
