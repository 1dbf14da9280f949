import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { callsOf, callsOfSteps } from '../../../testing/counted-calls.ts';
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
  for (const _step of catalog.finishLoading());
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

/** The calls that a step may make: far less than 5 ms. */
const CALLS_MAX = 30_000;
const FOLDER = 'files/catalog';

/** A catalog while it is loaded: documents, in turn by collection, in an order that is not sorted. */
function loading(documents: number, collections: number): Catalog {
  const catalog = new Catalog();
  for (let n = 0; n < documents; n++) {
    const seq = 1 + ((n * 7_919) % documents);
    catalog.apply({ ...state(seq), collection: `c${n % collections}`, id: `${n}`, createdSeq: seq });
  }
  return catalog;
}

describe('a catalog with as many collections as documents', () => {
  it('finishes loading with as many calls as one with few collections, in short steps', () => {
    const few = callsOf(() => [...loading(4_000, 2).finishLoading()], FOLDER);
    const many = callsOfSteps(loading(4_000, 4_000).finishLoading(), FOLDER);
    expect(few).toBeGreaterThan(4_000);
    expect(many.reduce((sum, one) => sum + one)).toBeLessThan(2 * few);
    expect(Math.max(...many)).toBeLessThan(CALLS_MAX);
  });

  it('lists each collection in the order of creation', () => {
    const catalog = loading(3_000, 3);
    for (const _step of catalog.finishLoading());
    for (const collection of ['c0', 'c1', 'c2']) {
      const seqs = [...catalog.list(collection, 0)].map(({ createdSeq }) => createdSeq);
      expect(seqs).toHaveLength(1_000);
      expect(seqs).toEqual(seqs.toSorted((a, b) => a - b));
    }
    expect([...catalog.changes(0)].map(({ seq }) => seq)).toEqual(
      Array.from({ length: 3_000 }, (_, n) => n + 1),
    );
  });

  it('counts 900 bytes of memory for each collection', () => {
    const memoryOf = (collections: number) => loading(1_000, collections).memoryBytes;
    expect(memoryOf(1_000) - memoryOf(1)).toBe(999 * 900);
  });

  it('knows its usage without a visit to each collection', () => {
    const catalog = loading(1_000, 1_000);
    let usage: unknown;
    const calls = callsOf(() => {
      usage = catalog.usage;
    }, FOLDER);
    expect(calls).toBeLessThan(10);
    expect(usage).toEqual({ documents: 1_000, bytes: 50_050_000 });
  });
});
