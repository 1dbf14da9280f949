import { parseTree } from '@bundoc/shared/json/tree';
import { expect, it } from 'vitest';
import type { BatchOperation } from '../batch/operation.ts';
import { mergePatchOf, type Patch } from '../patch/read-patch.ts';
import type { StoredDocument, Write } from '../storage/port.ts';
import { Batches } from './batches.ts';

const COUNT = 50;
const refOf = (n: number) => ({ collection: 'notes', id: `d${n}` });

/** Answers every read at once, as one whose documents are in memory, and takes every write. */
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

it('others have their turn between any two patches of a batch', async () => {
  const { batches, commits } = storeInMemory();
  const merge = mergePatchOf(parseTree('{"patched":true}'));
  let turn = 0;
  const turns: number[] = [];
  const countTurns = () => {
    turn++;
    if (commits.length === 0) setImmediate(countTurns);
  };
  setImmediate(countTurns);
  const noting: Patch = (own) => {
    turns.push(turn);
    return merge(own);
  };
  await batches.run('p', patches(noting));
  expect(new Set(turns).size).toBe(COUNT);
  expect(commits).toHaveLength(1);
  expect(commits[0]?.map((write) => write.kind === 'put' && write.content.bytes.toString())).toEqual(
    Array.from({ length: COUNT }, () => '"n":1,"patched":true'),
  );
});

it('patches that make more of their documents than a commit may hold are refused before all of it is held', async () => {
  const { batches, commits } = storeInMemory(33_554_432);
  const large = `"x":"${'x'.repeat(1_000_000)}"`;
  let applied = 0;
  const growing: Patch = () => {
    applied++;
    return parseTree(`{${large}}`) as ReturnType<Patch>;
  };
  await expect(batches.run('p', patches(growing))).rejects.toMatchObject({ code: 'payload_too_large' });
  expect(commits).toEqual([]);
  expect(applied).toBeLessThan(COUNT);
});
