import { randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import type { DocumentState } from '../../state.ts';
import { Catalog } from './catalog.ts';

const FILE_NAME = randomBytes(16);
const state = (seq: number, deletedMs = 0): DocumentState => ({
  collection: 'notes',
  id: 'a',
  fileName: FILE_NAME,
  seq,
  createdSeq: 1,
  createdMs: 0,
  rev: Buffer.alloc(12, seq),
  keyVersion: 1,
  size: seq * 100,
  deletedMs,
});

it.each([
  [[state(1), state(3), state(2)]],
  [[state(3), state(1), state(3), state(2)]],
  [[state(2, 5), state(3), state(2, 5)]],
])('while loading, the state with the highest seq wins, in any order and number of states', (states) => {
  const catalog = new Catalog();
  for (const one of states) catalog.apply(one);
  catalog.finishLoading();
  expect(catalog.get({ collection: 'notes', id: 'a' })).toEqual(state(3));
  const { collection, id, seq, createdSeq, keyVersion, size, ...last } = state(3);
  const [fileName, rev] = [last.fileName.toString('hex'), last.rev.toString('hex')];
  expect([...catalog.list('notes', 0)]).toEqual([
    { collection, id, fileName, rev, seq, createdSeq, keyVersion, size },
  ]);
  expect([...catalog.changes(0)]).toEqual([state(3)]);
  expect(catalog.collections()).toEqual([{ name: 'notes', documents: 1, bytes: 300 }]);
  expect(catalog.lastSeq).toBe(3);
});
