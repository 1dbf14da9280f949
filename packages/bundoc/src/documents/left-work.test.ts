import { AppError } from '@bundoc/shared/contract/app-error';
import { expect, it, vi } from 'vitest';
import { acceptInTurns } from '../collections/schema-checks.ts';
import { answeredBefore } from '../service/patching.ts';
import { WorkBench } from '../testing/work-bench.ts';
import { LARGE_BYTES } from '../work/large-bytes.ts';
import { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { readFields } from './fields.ts';
import { digestInTurns, readBatchInTurns, readBodyInTurns, readPatchInTurns } from './large-content.ts';
import { ifMatchOfBody } from './precondition-headers.ts';
import { projectInTurns } from './project-text.ts';

const LARGE = 'x'.repeat(LARGE_BYTES);
const LIMITS = { documentBytesMax: 1_000_000 };
const metadata = {
  _id: 'a',
  _collection: 'notes',
  _rev: '1',
  _created: '2026-01-01T00:00:00.000Z',
  _updated: '2026-01-01T00:00:00.000Z',
};
const batchOf = (pad: string) =>
  Buffer.from(
    JSON.stringify({ operations: [{ op: 'put', collection: 'notes', id: 'a', document: { pad } }] }),
  );
const STEPS: Record<string, (work: Work) => unknown> = {
  'a document is read': (work) => readBodyInTurns(Buffer.from(`{"pad":"${'x'.repeat(16_384)}"}`), work),
  'a large document is read': (work) => readBodyInTurns(Buffer.from(`{"pad":"${LARGE}"}`), work),
  'a batch is read': (work) => readBatchInTurns(batchOf('x'), LIMITS, ifMatchOfBody, work),
  'a large batch is read': (work) => readBatchInTurns(batchOf(LARGE), LIMITS, ifMatchOfBody, work),
  'a patch is read': (work) => readPatchInTurns('merge', Buffer.from('{"v":1}'), 1_000_000, work),
  'a large patch is read': (work) =>
    readPatchInTurns('merge', Buffer.from(`{"pad":"${LARGE}"}`), 1_000_000, work),
  'a large body is hashed': (work) => digestInTurns(Buffer.from(`{"pad":"${LARGE}"}`), work),
  'a schema is accepted': (work) => acceptInTurns({ properties: { v: {} } }, work),
  'fields are chosen': (work) => {
    const fields = readFields(['v']);
    if (typeof fields === 'string') throw new Error(fields);
    return projectInTurns([{ metadata, text: Buffer.from('{"_id":"a","v":1}') }], fields, work);
  },
};

it.each(Object.entries(STEPS))('a request that waits uses no processor time once %s', async (_name, step) => {
  const bench = new WorkBench();
  await using scheduler = new Scheduler(bench.ports);
  {
    using work = scheduler.work({ subject: 's', project: 'p' }, 'write');
    await step(work);
    bench.take(60_000_000);
  }
  // The threads' own time counts, and is far less.
  expect(scheduler.usedS('write')).toBeLessThan(10);
});

it('a repeated patch that no longer applies is not charged for the lookup of its first answer', async () => {
  const bench = new WorkBench();
  await using scheduler = new Scheduler(bench.ports);
  {
    using work = scheduler.work({ subject: 's', project: 'p' }, 'patch');
    await work.pause();
    const commit = async () => {
      bench.take(60_000_000);
      throw new AppError('precondition_failed');
    };
    const options = { work, idempotency: { key: 'k', request: 'r' } };
    const refusal = new AppError('patch_inapplicable');
    const ref = { collection: 'notes', id: 'a' };
    await expect(answeredBefore({ commit } as never, ref, options, refusal)).rejects.toBe(refusal);
  }
  expect(scheduler.usedS('patch')).toBe(0);
});

it.each([
  [8_192, 'at once', false, 0],
  [8_193, 'in a turn of its own', true, 0],
  [131_072, 'in a turn of its own', true, 0],
  [131_073, 'in another thread', true, 1],
])('a body of %d bytes is read %s', async (bytes, _how, waits, jobs) => {
  await using scheduler = new Scheduler();
  using work = scheduler.work({ subject: 's', project: 'p' }, 'write');
  const run = vi.spyOn(scheduler.large, 'run');
  const body = Buffer.from(`{"pad":"${'x'.repeat(bytes - 10)}"}`);
  const read = readBodyInTurns(body, work);
  expect(read instanceof Promise).toBe(waits);
  expect((await read).content.bytes).toHaveLength(bytes - 2);
  expect(run).toHaveBeenCalledTimes(jobs);
});
