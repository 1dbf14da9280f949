import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openDefinedStore } from '../collections/defined-store.ts';
import { cursorsOf } from '../crypto/sealed-cursor.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { SCAN_LIMITS } from '../queries/scan-budget.ts';
import { whereSchema } from '../queries/where.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { asked, assertQueriesAreRight, type CrashingProject } from '../testing/queries-property.ts';
import { documentText } from '../testing/query-arbitraries.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import { commitOne, put } from '../testing/writes.ts';
import { readValue, type Value } from '../values/value.ts';
import { writeValue } from '../values/write-value.ts';
import { LARGE_BYTES } from '../work/large-bytes.ts';
import { Scheduler } from '../work/scheduler.ts';
import { Queries } from './queries.ts';

const RUNS = Number(process.env['QUERY_RUNS'] ?? 300);

async function makeProject({
  survival,
}: {
  survival: 'synced only' | 'everything';
}): Promise<CrashingProject> {
  const project = new ProjectInFiles();
  let disk: SimulatedDisk = ProjectInFiles.disk();
  await project.create(disk);
  return {
    open: async () => openDefinedStore(endingWith(disk, await project.open(disk)), project.clock),
    rotate: async () => project.rotate(),
    crashBehind: (operations) => disk.failAt({ operation: operations + 1, when: 'after', what: 'crash' }),
    restart: async () => {
      disk = disk.crashed ? disk.powerCut(survival) : disk.restart();
    },
    get cursors() {
      return cursorsOf('p', project.cipher);
    },
  };
}

/** A store whose calls fail when its process dies, because the log then answers nothing. */
function endingWith(disk: SimulatedDisk, store: FileStore): FileStore {
  return new Proxy(store, {
    get: (of, name) => {
      const member: unknown = Reflect.get(of, name, of);
      if (typeof member !== 'function') return member;
      return (...args: unknown[]) => {
        const result: unknown = member.apply(of, args);
        return result instanceof Promise ? Promise.race([result, disk.crashes]) : result;
      };
    },
  });
}

/** A value as an answer has it: JSON does not tell 0 from -0 here. */
const written = (value: Value | undefined) => (value === undefined ? undefined : writeValue(value));

/** Queries over a collection of these documents. */
async function queriesOver(texts: readonly string[]): Promise<Queries> {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const store = await openDefinedStore(await project.open(disk), project.clock);
  await store.define('notes', { indexes: [{ fields: ['a'], unique: false }] }, { kind: 'none' });
  for (const [n, text] of texts.entries()) await commitOne(store, put(`d${n}`, text));
  const cursors = cursorsOf('p', project.cipher);
  const lease = { store, cursors, isUsable: () => true, [Symbol.dispose]: () => undefined };
  return new Queries({ acquire: async () => lease }, SCAN_LIMITS);
}

describe('queries', () => {
  it('find, order, count and add up large documents like small ones', async () => {
    await using scheduler = new Scheduler();
    const padded = (text: string) =>
      text.replace(/\}$/, `${text === '{}' ? '' : ','}"pad":"${'x'.repeat(LARGE_BYTES)}"}`);
    const seen = { found: 0, missed: 0 };
    await fc.assert(
      fc.asyncProperty(
        fc.array(documentText, { minLength: 2, maxLength: 4 }),
        fc.array(asked, { minLength: 2, maxLength: 5 }),
        async (texts, all) => {
          const small = await queriesOver(texts);
          const large = await queriesOver(texts.map(padded));
          for (const { where: whereText, orderBy, figures } of all) {
            const where = whereSchema.safeParse(readValue(whereText));
            if (!where.success) continue;
            const answers = [];
            for (const queries of [small, large]) {
              using work = scheduler.background('p', 'query');
              const selection = { project: 'p', collection: 'notes', where: where.data, whereText, work };
              const page = { limit: 100, bytesMax: 10_000_000, cursor: undefined, fields: undefined };
              const found = await queries.query({ ...selection, ...page, orderBy: [...orderBy] });
              const { count } = await queries.count(selection);
              const { groups } = await queries.aggregate(
                selection,
                ['b'],
                [{ op: 'count' }, { op: 'max', field: 'a' }, ...figures],
              );
              answers.push({
                ids: found.documents.map(({ metadata }) => metadata._id),
                count,
                groups: groups.map(({ values, figures }) => [...values, ...figures].map(written)),
              });
              seen.found += count;
              seen.missed += texts.length - count;
            }
            expect(answers[1]).toEqual(answers[0]);
          }
        },
      ),
      { numRuns: 30 },
    );
    expect(seen.found).toBeGreaterThan(10);
    expect(seen.missed).toBeGreaterThan(10);
  });

  it('find the same as a naive evaluator, in the same order, with any indexes and after any history', async () => {
    const { pages, found, ordered, counted } = await assertQueriesAreRight(makeProject, RUNS);
    // The indexes were used, for finding, order and counts.
    expect(found / pages).toBeGreaterThan(0.1);
    expect(Math.min(ordered, counted)).toBeGreaterThan(0);
  });
});
