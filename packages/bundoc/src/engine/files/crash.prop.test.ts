import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProjectInFiles } from '../../testing/project-in-files.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { put, ref, remove } from '../../testing/writes.ts';
import type { Write } from '../port/port.ts';
import type { FileStore } from './store/file-store.ts';

/** Groups of concurrent commits, and the events between them. */
type Step =
  | { readonly kind: 'commits'; readonly commits: readonly (readonly Op[])[] }
  | { readonly kind: 'checkpoint' | 'checkpoint beside' }
  | { readonly kind: 'reopen' };
interface Op {
  readonly id: string;
  /** Undefined deletes. */
  readonly pad: number | undefined;
}

const IDS = ['a', 'b', 'c', 'd', 'e', 'f'];
const op = fc.record({
  id: fc.constantFrom(...IDS),
  pad: fc.option(fc.integer({ min: 0, max: 3_000 }), { nil: undefined, freq: 4 }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .array(fc.array(op, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 5 })
      .map((commits) => ({ kind: 'commits', commits }) as const),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'checkpoint' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'checkpoint beside' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' } as const) },
);

/** The expected value of each document, by id. */
type Model = ReadonlyMap<string, number>;

/** A commit that was passed to the store. */
interface Given {
  readonly ops: readonly Op[];
  readonly values: readonly number[];
  /** With the outcome `unknown`, it may have taken effect. */
  fate: 'unknown' | 'acknowledged' | 'refused';
}

let counter = 0;

function writeOf({ id, pad }: Op, value: number): Write {
  return pad === undefined ? remove(id) : put(id, `{"v":${value},"pad":"${'x'.repeat(pad)}"}`);
}

/** The model after a commit, or undefined when the store must refuse it: a delete of an absent document. */
function applied(model: Model, ops: readonly Op[], values: readonly number[]): Model | undefined {
  const next = new Map(model);
  for (const [at, { id, pad }] of ops.entries()) {
    if (pad !== undefined) next.set(id, values[at] as number);
    else if (!next.delete(id)) return undefined;
  }
  return next;
}

async function run(
  project: ProjectInFiles,
  disk: SimulatedDisk,
  steps: readonly Step[],
  given: Given[],
): Promise<void> {
  let store = await project.open(disk);
  for (const current of steps) {
    if (current.kind === 'checkpoint') await store.checkpoint();
    // Commits continue during it. When it crashes, so do they.
    if (current.kind === 'checkpoint beside') store.checkpoint().catch(() => undefined);
    if (current.kind === 'reopen') {
      await store[Symbol.asyncDispose]();
      store = await project.open(disk);
    }
    if (current.kind !== 'commits') continue;
    await Promise.all(
      current.commits.map(async (ops) => {
        const one: Given = { ops, values: ops.map(() => ++counter), fate: 'unknown' };
        given.push(one);
        try {
          await store.commit(ops.map((write, at) => writeOf(write, one.values[at] as number)));
          one.fate = 'acknowledged';
        } catch (error) {
          if (disk.crashed) throw error;
          expect(error).toMatchObject({
            code: expect.stringMatching(/^(document_not_found|storage_unavailable)$/),
          });
          one.fate = 'refused';
        }
      }),
    );
  }
  await store[Symbol.asyncDispose]();
}

/**
 * The allowed states: the model after the last acknowledged commit, and after each later one of unknown
 * outcome.
 */
function allowedAfter(given: readonly Given[]): Model[] {
  let model: Model = new Map();
  let allowed: Model[] = [model];
  for (const { ops, values, fate } of given) {
    if (fate === 'refused') continue;
    const next = applied(model, ops, values);
    if (next === undefined) {
      expect(fate, 'the delete of what is not there').toBe('unknown');
      continue;
    }
    model = next;
    allowed = fate === 'acknowledged' ? [model] : [...allowed, model];
  }
  return allowed;
}

async function contentOf(store: FileStore): Promise<Map<string, number>> {
  const content = new Map<string, number>();
  for (const id of IDS) {
    const text = (await store.get(ref(id)))?.text.toString();
    if (text !== undefined) content.set(id, Number(/"v":(\d+)/.exec(text)?.[1]));
  }
  return content;
}

/** Resolves when a history ends, or its process dies: then pending operations never settle. */
async function untilCrash(disk: SimulatedDisk, history: Promise<unknown>): Promise<void> {
  await Promise.race([history, disk.crashes]).catch(() => undefined);
}

const sorted = (model: Model) => JSON.stringify([...model].sort());

/**
 * Requires that the store is in an allowed state, consistent, and able to continue.
 *
 * @returns its content.
 */
async function check(store: FileStore, allowed: readonly Model[]): Promise<Model> {
  const content = await contentOf(store);
  expect(allowed.map(sorted)).toContain(sorted(content));
  const listed = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1_000_000 });
  expect(listed.documents.map(({ metadata }) => metadata._id).sort()).toEqual([...content.keys()].sort());
  const { changes } = await store.changes(0, 100);
  expect(
    changes
      .filter(({ deleted }) => !deleted)
      .map(({ ref: { id } }) => id)
      .sort(),
  ).toEqual([...content.keys()].sort());
  return content;
}

const RUNS = Number(process.env['CRASH_RUNS'] ?? runs(300, 1_500));

describe('a history with a crash', () => {
  it('keeps every acknowledged commit as a whole, and continues, with further crashes during recovery', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 8 }),
        fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        fc.constantFrom('before' as const, 'after' as const),
        fc.integer({ min: 1, max: 2_147_483_646 }),
        fc.constantFrom('synced only' as const, 'everything' as const, 'random' as const, 'random' as const),
        fc.constantFrom('crash' as const, 'crash' as const, 'storage_unavailable' as const),
        fc.array(fc.constantFrom('power cut' as const, 'kill -9' as const), { minLength: 3, maxLength: 3 }),
        async (steps, where, when, seed, mode, what, ends) => {
          let state = seed;
          const random = () => {
            state = (state * 48_271) % 2_147_483_647;
            return state / 2_147_483_647;
          };
          const survival = mode === 'random' ? { random } : mode;
          // After kill -9, a process finds unsynced content and continues from it, and a power cut may still
          // lose it.
          const after = (ended: SimulatedDisk) =>
            ends.pop() === 'kill -9' ? ended.restart() : ended.powerCut(survival);
          const project = new ProjectInFiles();

          // Counts the operations of the history without a crash.
          const whole = ProjectInFiles.disk();
          await project.create(whole);
          const created = whole.operations;
          const all: Given[] = [];
          await run(project, whole, steps, all);
          allowedAfter(all);
          const operations = whole.operations - created;
          if (operations === 0) return;

          const disk = ProjectInFiles.disk();
          await project.create(disk);
          disk.failAt({ operation: 1 + Math.floor(where * operations), when, what });
          const given: Given[] = [];
          await untilCrash(disk, run(project, disk, steps, given));

          // Recovery itself crashes at a random operation, and then runs undisturbed.
          const second = after(disk);
          second.failAt({ operation: 1 + Math.floor(random() * 12), when, what: 'crash' });
          await untilCrash(
            second,
            project.open(second).then((store) => store.checkpoint()),
          );
          const third = after(second);
          const store = await project.open(third);
          const content = await check(store, allowedAfter(given));

          // The store continues: after another commit, everything is there after one more end and finally a
          // power cut.
          await store.commit([put('a', '{"v":0}')]);
          const fourth = after(third);
          const last = await project.open(fourth);
          await check(last, [new Map([...content, ['a', 0]])]);
          await check(await project.open(fourth.powerCut(survival)), [new Map([...content, ['a', 0]])]);
          expect(project.damaged).toEqual([]);
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
  });
});
