import { parseJsonObject } from '@bundoc/shared/json/parse';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import { cursorsOf } from '../crypto/sealed-cursor.ts';
import { readPatch } from '../documents/patch/read-patch.ts';
import type { Write } from '../engine/port/port.ts';
import { SCAN_LIMITS } from '../queries/scan-budget.ts';
import { whereSchema } from '../queries/where.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { put, ref } from '../testing/writes.ts';
import { readValue } from '../values/value.ts';
import { ownWork } from '../work/scheduler.ts';
import { Batches } from './batches.ts';
import { ENOUGH } from './find-matches.ts';
import { QueryWrites } from './query-writes.ts';

const DOCUMENTS = 40;
const WRITERS = 8;
const RUNS = Number(process.env['QUERY_RUNS'] ?? 60);

interface State {
  readonly on: boolean;
  /** How often the pass has changed the document. */
  readonly passed: number;
  /** How often writers have. */
  readonly own: number;
}

const updateOf = (text: string) => readPatch('update', Buffer.from(text), 1_000, 'body.update');
const stateOf = (text: Buffer) => parseJsonObject(text).value as unknown as State;

/** One change of one document by a writer. */
const change = fc.record({ id: fc.nat(DOCUMENTS - 1), on: fc.boolean() });

async function start() {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const store = await openDefinedStore(await project.open(disk), project.clock);
  const cursors = cursorsOf('p', project.cipher);
  const lease = { store, cursors, isUsable: () => true, [Symbol.dispose]: () => undefined };
  const instances = { acquire: async () => lease };
  return { store, instances };
}

/** Checks each write of the pass against the document that it replaces: its condition holds there. */
function watchPass(store: DefinedStore) {
  const { commit } = store;
  const wrong: string[] = [];
  store.commit = async (writes: readonly Write[], options) => {
    const results = await commit.call(store, writes, options);
    for (const write of writes)
      if (options?.idempotency?.note !== undefined && write.kind === 'put') {
        const { on, passed } = stateOf(Buffer.from(`{${write.content.bytes.toString()}}`));
        if (!on || passed !== 1) wrong.push(write.ref.id);
      }
    return results;
  };
  return wrong;
}

it('among eight writers, a pass changes each document once if it matches when it is written, and loses no change', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(change, { maxLength: 12 }), { minLength: WRITERS, maxLength: WRITERS }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.boolean(), { minLength: DOCUMENTS, maxLength: DOCUMENTS }),
      async (plans, limit, initial) => {
        const { store, instances } = await start();
        await store.commit(initial.map((on, n) => put(`d${n}`, `{"on":${on},"passed":0,"own":0}`)));
        const wrong = watchPass(store);
        const batches = new Batches(instances as never, 1_000_000);
        const options = { documentBytesMax: 1_000_000, scan: SCAN_LIMITS, enough: ENOUGH };
        const queryWrites = new QueryWrites(instances, options);
        const text = '{"$inc":{"passed":1}}';
        const where = '{"on":true}';
        const request = {
          project: 'p',
          collection: 'notes',
          where: whereSchema.parse(readValue(where)),
          whereText: where,
          patch: updateOf(text),
          patchText: text,
          limit,
          isDryRun: false,
        };
        const own = new Map<number, number>();
        const write = async (plan: readonly { id: number; on: boolean }[]) => {
          for (const { id, on } of plan) {
            const patch = updateOf(`{"$inc":{"own":1},"$set":{"on":${on}}}`);
            const operation = { op: 'patch', ref: ref(`d${id}`), patch, precondition: { kind: 'none' } };
            using work = ownWork('p')('batch');
            await batches.run('p', [operation as never], { work });
            own.set(id, (own.get(id) ?? 0) + 1);
          }
        };
        let written = 0;
        const pass = async () => {
          let cursor: string | undefined;
          let n = 0;
          do {
            const idempotency = { key: `${n}`.padStart(32, '0'), request: `${n++}`.padStart(32, 'f') };
            using work = ownWork('p')('batch');
            const answer = await queryWrites.run({ ...request, cursor }, { work, idempotency });
            written += answer.written;
            cursor = answer.next;
          } while (cursor !== undefined);
        };
        await Promise.all([pass(), ...plans.map(write)]);

        const touched = new Set(plans.flat().map(({ id }) => id));
        let passed = 0;
        for (let id = 0; id < DOCUMENTS; id++) {
          const document = await store.get(ref(`d${id}`));
          const state = stateOf(document?.text ?? Buffer.of());
          expect(state.own).toBe(own.get(id) ?? 0);
          expect(state.passed).toBeLessThanOrEqual(1);
          if (!touched.has(id)) expect(state.passed).toBe(Number(initial[id]));
          passed += state.passed;
        }
        expect(wrong).toEqual([]);
        expect(passed).toBe(written);
        await store[Symbol.asyncDispose]();
      },
    ),
    { numRuns: RUNS },
  );
});
