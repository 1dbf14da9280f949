import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { callsOf, callsOfSteps } from '../../../testing/counted-calls.ts';
import type { DocumentState } from '../../port/state.ts';
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

/** A catalog in which the last documents are deleted, one each millisecond from 1 on. */
function withTombstones(living: number, tombstones: number): Catalog {
  const catalog = new Catalog();
  const add = (seq: number, deletedMs: number) =>
    catalog.apply({ ...state(seq, deletedMs), id: `d${seq}`, createdSeq: seq });
  for (let n = 1; n <= living; n++) add(n, 0);
  // Half of them while it is loaded, and half as commits.
  for (let n = 1; n <= tombstones / 2; n++) add(living + n, n);
  for (const _step of catalog.finishLoading());
  for (let n = tombstones / 2 + 1; n <= tombstones; n++) add(living + n, n);
  return catalog;
}

function purged(catalog: Catalog, beforeMs: number, max: number): number {
  const steps = catalog.purge(beforeMs, max);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

describe('a purge', () => {
  it('visits no document and no later tombstone when nothing is due', () => {
    const catalog = withTombstones(2_000, 200);
    expect(callsOf(() => [...catalog.purge(1, 1_000)], FOLDER)).toBeLessThan(30);
    expect(catalog.tombstones).toBe(200);
  });

  it('forgets many tombstones in short steps', () => {
    const calls = callsOfSteps(withTombstones(0, 2_000).purge(1e6, 1_000), FOLDER);
    expect(calls.length).toBeGreaterThan(2);
    expect(Math.max(...calls)).toBeLessThan(CALLS_MAX);
  });

  it('forgets the oldest tombstones beyond the maximum, and then those that are too old', () => {
    const catalog = withTombstones(10, 20);
    expect(purged(catalog, 0, 15)).toBe(5);
    expect([catalog.tombstones, catalog.purgedSeq]).toEqual([15, 15]);
    expect(purged(catalog, 8, 15)).toBe(2);
    expect([catalog.tombstones, catalog.purgedSeq]).toEqual([13, 17]);
    expect(catalog.get({ collection: 'notes', id: 'd17' })).toBeUndefined();
    expect(catalog.get({ collection: 'notes', id: 'd18' })?.deletedMs).toBe(8);
    expect(catalog.usage.documents).toBe(10);
  });

  it('keeps a document that was created again', () => {
    const catalog = withTombstones(0, 4);
    catalog.apply({ ...state(9), id: 'd1', createdSeq: 9 });
    expect(purged(catalog, 1e6, 0)).toBe(3);
    expect(catalog.get({ collection: 'notes', id: 'd1' })?.seq).toBe(9);
    expect(catalog.usage.documents).toBe(1);
  });

  it('forgets a collection with its last tombstone', () => {
    const catalog = withTombstones(0, 4);
    catalog.apply({ ...state(9), collection: 'other', id: 'x', createdSeq: 9 });
    const before = catalog.memoryBytes;
    expect(purged(catalog, 1e6, 0)).toBe(4);
    expect(before - catalog.memoryBytes).toBeGreaterThan(900);
    catalog.apply({ ...state(10), id: 'd1', createdSeq: 10 });
    expect(catalog.collections().map(({ name }) => name)).toEqual(['notes', 'other']);
  });
});
