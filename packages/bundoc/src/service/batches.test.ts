import { parseTree } from '@bundoc/shared/json/tree';
import { expect, it } from 'vitest';
import type { BatchOperation } from '../documents/operation.ts';
import { mergePatchOf, type Patch } from '../documents/patch/read-patch.ts';
import { COMMIT_BYTES_MAX, type StoredDocument, type Write } from '../engine/port/port.ts';
import { SlowSteps } from '../testing/slow-steps.ts';
import { Batches } from './batches.ts';

const COUNT = 50;
const refOf = (n: number) => ({ collection: 'notes', id: `d${n}` });

/** Answers every read synchronously, like documents in memory, and accepts every write. */
function storeInMemory(documentBytesMax = 1_000) {
  const commits: Write[][] = [];
  const documentOf = (id: string): StoredDocument => {
    const _rev = id.padStart(24, '0');
    const text = Buffer.from(
      `{"_id":"${id}","_collection":"notes","_rev":"${_rev}","_created":"2026-01-01T00:00:00.000Z","_updated":"2026-01-01T00:00:00.000Z","n":1}`,
    );
    return { text, metadata: { _id: id, _collection: 'notes', _rev } } as never;
  };
  const store = {
    get: async ({ id }: { id: string }) => documentOf(id),
    commit: async (writes: Write[]) => {
      commits.push(writes);
      return [];
    },
  };
  const instances = { acquire: async () => ({ store, [Symbol.dispose]: () => undefined }) };
  return { batches: new Batches(instances as never, documentBytesMax), commits };
}

function patches(patch: Patch): BatchOperation[] {
  return Array.from({ length: COUNT }, (_, n) => ({
    op: 'patch',
    ref: refOf(n),
    patch,
    precondition: { kind: 'none' },
  }));
}

it('other requests have their turn between any two patches of a batch', async () => {
  const { batches, commits } = storeInMemory();
  const steps = new SlowSteps();
  const merge = mergePatchOf(parseTree('{"patched":true}'));
  await batches.run('p', patches(merge), { work: steps.work('batch') });
  expect(steps.turns).toBeGreaterThanOrEqual(COUNT);
  expect(commits).toHaveLength(1);
  expect(commits[0]?.map((write) => write.kind === 'put' && write.content.bytes.toString())).toEqual(
    Array.from({ length: COUNT }, () => '"n":1,"patched":true'),
  );
});

it('patches with a result larger than a commit are refused before all of it is held', async () => {
  const { batches, commits } = storeInMemory(33_554_432);
  const steps = new SlowSteps();
  const merge = mergePatchOf(parseTree(`{"x":"${'x'.repeat(1_000_000)}"}`));
  const work = steps.work('batch');
  await expect(batches.run('p', patches(merge), { work })).rejects.toMatchObject({
    code: 'payload_too_large',
  });
  expect(commits).toEqual([]);
  expect(steps.memory.most).toBeGreaterThan(COMMIT_BYTES_MAX - 1_100_000);
  expect(steps.memory.most).toBeLessThanOrEqual(COMMIT_BYTES_MAX);
  work[Symbol.dispose]();
  expect(steps.memory.held).toBe(0);
});
