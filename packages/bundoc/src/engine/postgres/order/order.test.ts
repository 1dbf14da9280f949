import { OpenError } from '@bundoc/shared/crypto/aead';
import { runs as runsOf } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodePosition, positionOf } from '../../../values/key.ts';
import { pathOf } from '../../../values/path.ts';
import { indexKeysOf } from '../../indexes/index-keys.ts';
import { ALWAYS } from '../../port/index-port.ts';
import { decodeCell, encodeCell } from './cell.ts';
import { entriesOf, type OrderEntry, PLACE_UNITS_MAX } from './entry.ts';
import { decodeManifest, encodeManifest, type Manifest, type Run } from './manifest.ts';
import { mergeFrom, mergeRuns } from './merge.ts';
import { PAGE_BYTES, PAGE_PLAIN_BYTES, Page, PageWriter, readNumbers } from './page.ts';
import { BATCH_PAGES, type OrderStep, type RunSteps, RunWriter, writeRun } from './run-writer.ts';
import { OrderedSearch } from './search.ts';
import { Tail } from './tail.ts';

const SEQ_MAX = 2 ** 48 - 1;
const EVERYTHING = { low: '', high: '\u0100' };
const units = fc.string({ unit: fc.constantFrom('\x00', '\x01', 'a', '\xfe', '\xff'), maxLength: 40 });
const seq = fc.oneof(fc.nat(1_000), fc.integer({ min: 0, max: SEQ_MAX }));

/** The result, or undefined if it is refused; any other error fails the test. */
function openedBy<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    expect(error).toBeInstanceOf(OpenError);
    return undefined;
  }
}

/** Changes some bytes. */
const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
function damaged(bytes: Buffer, changes: readonly (readonly [number, number])[]): Buffer {
  const copy = Buffer.from(bytes);
  for (const [at, byte] of changes) copy[at % copy.length] = byte;
  return copy;
}

const textsOf = (page: Page) => Array.from({ length: page.size }, (_, item) => page.text(item));

describe('a cell', () => {
  const keysOf = fc.oneof(
    fc.constant({ keys: [], tooMany: true }),
    fc.array(units, { minLength: 1, maxLength: 5 }).map((keys) => ({ keys, tooMany: false })),
  );
  const indexes = fc.uniqueArray(fc.record({ id: seq, keys: keysOf }), { selector: ({ id }) => id });

  it('has the keys of a document in each index, and a size that is a multiple of 32', () => {
    fc.assert(
      fc.property(indexes, (list) => {
        const cell = encodeCell(list);
        expect(cell.length % 32).toBe(0);
        const expected = list.map(({ id, keys }) => [id, keys.tooMany ? 'too many' : keys.keys] as const);
        expect(decodeCell(cell)).toEqual(new Map(expected));
      }),
      { numRuns: runsOf(300, 20_000) },
    );
  });

  it('says that there are too many keys in every index when they exceed 64 KiB together', () => {
    const keys = (count: number) => ({
      keys: Array.from({ length: count }, (_, n) => encodePosition(n).repeat(85)),
      tooMany: false,
    });
    expect(decodeCell(encodeCell([{ id: 1, keys: keys(127) }])).get(1)).toHaveLength(127);
    const cell = encodeCell([
      { id: 1, keys: keys(1) },
      { id: 2, keys: keys(128) },
    ]);
    expect(decodeCell(cell)).toEqual(
      new Map([
        [1, 'too many'],
        [2, 'too many'],
      ]),
    );
    expect(cell).toHaveLength(32);
  });

  it('is refused as sealed bytes are, or read, whatever its bytes are', () => {
    fc.assert(
      fc.property(indexes, damage, fc.uint8Array({ maxLength: 64 }), (list, changes, other) => {
        openedBy(() => decodeCell(damaged(encodeCell(list), changes)));
        openedBy(() => decodeCell(Buffer.from(other)));
      }),
      { numRuns: runsOf(500, 20_000) },
    );
    expect(() => decodeCell(Buffer.alloc(65_568))).toThrow(OpenError);
  });
});

describe('a page', () => {
  const texts = fc.uniqueArray(units, { minLength: 1, maxLength: 60 }).map((list) => list.sort());
  const write = (list: readonly string[], kind: 'leaf' | 'fences', bytes = PAGE_PLAIN_BYTES) => {
    const writer = new PageWriter(kind, bytes);
    for (const [at, text] of list.entries()) expect(writer.addText(text, at * 1_000_003)).toBe(true);
    return writer.bytes;
  };

  it('has each text with its value, and finds the number of texts before any other', () => {
    fc.assert(
      fc.property(texts, fc.array(units, { maxLength: 10 }), (list, others) => {
        const bytes = write(list, 'fences');
        expect(bytes).toHaveLength(PAGE_BYTES - 28);
        const page = new Page(bytes);
        expect([page.isLeaf, textsOf(page)]).toEqual([false, list]);
        for (const at of list.keys())
          expect(page.pageOf(list.length - 1 - at)).toBe((list.length - 1 - at) * 1_000_003);
        for (const other of [...others, ...list, '\u0100'])
          expect(page.countBefore(other)).toBe(list.filter((text) => text < other).length);
      }),
      { numRuns: runsOf(200, 20_000) },
    );
  });

  it('has entries with any position, and room for three of the longest keys that there are', () => {
    const fields = ['a', 'b', 'c', 'd'];
    const entries = ['x', 'y', 'z'].flatMap((unit) => {
      const document = Object.fromEntries(fields.map((field) => [field, unit.repeat(600)]));
      const [key = ''] = indexKeysOf(fields.map(pathOf), document).keys;
      expect(key.length + 6).toBe(PLACE_UNITS_MAX);
      return entriesOf(SEQ_MAX - 1, SEQ_MAX, [key]);
    });
    const steps = [...writeRun(new RunWriter(), entries)];
    const [leaf] = leavesOf(steps);
    expect(entries.map((_, item) => leaf!.entry(item))).toEqual(entries);
    const [first, second] = entriesOf(5, 7, ['a', 'b']) as [OrderEntry, OrderEntry];
    expect([first.isMultiple, positionOf(second.place), second.seq]).toEqual([true, 5, 7]);
    expect(entriesOf(5, 7, 'too many')).toEqual([
      { place: `${ALWAYS.low}${encodePosition(5)}`, createdSeq: 5, seq: 7, isMultiple: true },
    ]);
  });

  it('has creation positions in order', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(
          seq.filter((one) => one > 0),
          { minLength: 1, maxLength: 100 },
        ),
        (list) => {
          list.sort((a, b) => a - b);
          const writer = new PageWriter('changed', 1_000);
          for (const number of list) expect(writer.addNumber(number)).toBe(true);
          expect(readNumbers(writer.bytes)).toEqual(list);
          expect(() => new Page(writer.bytes)).toThrow(OpenError);
        },
      ),
      { numRuns: runsOf(200, 20_000) },
    );
  });

  it('is refused as sealed bytes are, or sorted, whatever its bytes are', () => {
    let sorted = 0;
    fc.assert(
      fc.property(texts, damage, fc.constantFrom('leaf', 'fences'), (list, changes, kind) => {
        const page = openedBy(() => new Page(damaged(write(list, kind, 2_200), changes)));
        openedBy(() => readNumbers(damaged(write(list, kind, 2_200), [...changes, [0, 3]])));
        if (page === undefined) return;
        sorted++;
        const found = textsOf(page);
        expect(found).toEqual([...new Set(found)].sort());
        if (page.isLeaf) expect(page.entry(0).seq).toBeLessThanOrEqual(SEQ_MAX);
      }),
      { numRuns: runsOf(1_000, 50_000) },
    );
    expect(sorted).toBeGreaterThan(0);
  });

  it.each([
    ['no item', [2, 0, 0]],
    ['another kind', [4, 0, 1, 0, 1, 97, 0]],
    ['a text twice', [2, 0, 2, 0, 1, 97, 0, 1, 0, 0]],
    ['texts in another order', [2, 0, 2, 0, 1, 98, 0, 0, 1, 97, 0]],
    ['a start that no text has', [2, 0, 1, 1, 1, 97, 0]],
    ['fewer items than it says', [2, 0, 2, 0, 1, 97, 0]],
    ['a text that ends after it', [2, 0, 1, 0, 120, 97, 0]],
    ['bytes after its items', [2, 0, 1, 0, 1, 97, 0, 1]],
    ['a longer form of a number', [2, 0, 1, 0, 1, 97, 0x81, 0]],
    ['a number of 50 bits', [2, 0, 1, 0, 1, 97, 255, 255, 255, 255, 255, 255, 255, 1]],
    ['a number of a page of 49 bits', [2, 0, 1, 0, 1, 97, 255, 255, 255, 255, 255, 255, 127]],
    ['a place without a key', [1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 1, 0]],
    ['a sequence number of 49 bits', [1, 0, 1, 0, 7, 2, 255, 255, 255, 255, 255, 255, 2]],
  ])('is refused if it has %s', (_, bytes) => {
    const page = Buffer.alloc(64);
    page.set(bytes);
    expect(() => new Page(page)).toThrow(OpenError);
  });

  it.each([
    ['a position twice', [3, 0, 2, 5, 0]],
    ['a position of 49 bits', [3, 0, 2, 1, 255, 255, 255, 255, 255, 255, 63]],
  ])('of creation positions is refused if it has %s', (_, bytes) => {
    const page = Buffer.alloc(64);
    page.set(bytes);
    expect(() => readNumbers(page)).toThrow(OpenError);
  });
});

describe('a manifest', () => {
  const run = fc
    .record({
      id: fc.constantFrom('0123456789abcdef', 'ffffffffffffffff'),
      entries: fc.integer({ min: 1, max: SEQ_MAX }),
      pages: fc.nat(2 ** 32 - 1),
      firsts: fc.uniqueArray(units, { minLength: 1, maxLength: 20 }),
      changed: fc.array(seq, { maxLength: 20 }),
    })
    .map(({ id, entries, pages, firsts, changed }): Run => {
      const fences = firsts.sort().map((first, at) => ({ first, id: at }));
      return { id, entries, multiple: entries % 7 === 0 ? 1 : 0, bytes: pages * PAGE_BYTES, fences, changed };
    });
  const manifest: fc.Arbitrary<Manifest> = fc.record({
    asOf: seq,
    builtTo: fc.oneof(fc.constant('all' as const), fc.nat()),
    indexed: seq,
    runs: fc.array(run, { maxLength: 5 }),
  });

  it('is read as it was written, and has a size that is a multiple of 512', () => {
    fc.assert(
      fc.property(manifest, (one) => {
        const bytes = encodeManifest(one);
        expect(bytes.length % 512).toBe(0);
        expect(decodeManifest(bytes)).toEqual(one);
      }),
      { numRuns: runsOf(200, 10_000) },
    );
    expect(decodeManifest(encodeManifest({ asOf: 0, builtTo: 0, indexed: 0, runs: [] })).builtTo).toBe(0);
  });

  it('is refused as sealed bytes are, or read, whatever its bytes are', () => {
    fc.assert(
      fc.property(manifest, damage, fc.uint8Array({ maxLength: 200 }), (one, changes, other) => {
        openedBy(() => decodeManifest(damaged(encodeManifest(one), changes)));
        openedBy(() => decodeManifest(Buffer.from(other)));
      }),
      { numRuns: runsOf(500, 20_000) },
    );
  });
});

describe('a tail', () => {
  const row = (name: string, createdSeq: number, at: number, keys?: readonly string[]) => ({
    name,
    createdSeq,
    seq: at,
    keys,
  });
  const places = (tail: Tail) => tail.entries().map(({ place }) => place.slice(0, -6));

  it('has the latest row of each name, also if a row comes again', () => {
    const tail = new Tail(10);
    tail.apply(row('a', 1, 12, ['x', 'y']));
    tail.apply(row('a', 1, 12, ['x', 'y']));
    tail.apply(row('b', 2, 13, ['w']));
    tail.apply(row('a', 1, 11, ['old']));
    expect(places(tail)).toEqual(['w', 'x', 'y']);
    expect([tail.changes, tail.size, tail.multiple, tail.bytes, tail.seenTo]).toEqual([2, 3, 2, 21, 13]);
    tail.apply(row('a', 1, 14));
    expect(places(tail)).toEqual(['w']);
    expect([tail.changes, tail.size, tail.multiple, tail.bytes, tail.seenTo]).toEqual([2, 1, 0, 7, 14]);
    expect([tail.isStale(1, 13), tail.isStale(1, 14), tail.isStale(3, 1)]).toEqual([true, false, false]);
    tail.sawTo(20);
    tail.sawTo(19);
    expect(tail.seenTo).toBe(20);
  });

  it('knows that a document is gone whose name came back, also after it was cut', () => {
    const tail = new Tail(10);
    tail.apply(row('a', 1, 11, ['x']));
    tail.apply(row('b', 2, 12, ['w']));
    tail.apply(row('a', 13, 13, ['x']));
    expect(places(tail)).toEqual(['w', 'x']);
    const cut = tail.after(12);
    expect(places(cut)).toEqual(['x']);
    for (const one of [tail, cut]) expect([one.isStale(1, 11), one.isStale(13, 13)]).toEqual([true, false]);
    expect([cut.asOf, cut.seenTo, cut.changed(), tail.changed()]).toEqual([12, 13, [1, 13], [1, 2, 13]]);
  });
});

describe('a run', () => {
  const ENTRIES = 60_000;
  const entries = Array.from({ length: ENTRIES }, (_, n) => entryAt(n, ENTRIES - n));

  it('is made in steps of at most 64 pages, with a pause every few hundred entries, and the size that it says', () => {
    const { run, steps, pages } = made(writeRun(new RunWriter(), entries, [1, 2, 3]));
    expect(run).toMatchObject({ entries: ENTRIES, multiple: 0, bytes: pages.size * PAGE_BYTES });
    expect(run.changed).toHaveLength(1);
    expect(steps.filter(({ kind }) => kind === 'pause').length).toBeGreaterThan(ENTRIES / 512);
    for (const step of steps)
      if (step.kind === 'write') expect(step.pages.length).toBeLessThanOrEqual(BATCH_PAGES);
    expect(decodeManifest(encodeManifest({ asOf: 1, builtTo: 2, indexed: 3, runs: [run] })).runs).toEqual([
      run,
    ]);
  });

  it('is searched with one fence page and the leaves of the entries alone, in both directions', () => {
    const { run, pages } = made(writeRun(new RunWriter(), entries));
    for (const isBackwards of [false, true]) {
      const cache = new Map<number, Page>();
      const place = entries[30_000]!.place;
      const range = isBackwards ? { low: '', high: place } : { low: place, high: '\u0100' };
      const search = new OrderedSearch({ runs: [run], tail: new Tail(0), range, isBackwards, source: cache });
      const asked: number[] = [];
      const find = (limit: number) => {
        for (;;) {
          const step = search.next(limit);
          if (!('missing' in step)) return step;
          asked.push(step.missing.length);
          for (const id of step.missing) cache.set(id, new Page(pages.get(id)!));
        }
      };
      expect(find(20)).toMatchObject({
        entries: isBackwards ? entries.slice(29_980, 30_000).reverse() : entries.slice(30_000, 30_020),
      });
      // A second leaf, in case the first one ends within the 20.
      expect(asked).toEqual([1, 2]);
      // Many leaves are asked for together.
      asked.length = 0;
      expect(find(10_000)).toMatchObject({ entries: { length: 10_000 } });
      expect(asked.length).toBeLessThanOrEqual(2);
    }
  });

  it('is searched from the beginning of a leaf without the leaf before it', () => {
    const { run, pages } = made(writeRun(new RunWriter(), entries));
    const fences = new Page(pages.get(run.fences[0]!.id)!);
    const cache = new Map([[run.fences[0]!.id, fences]]);
    const range = { low: fences.text(5), high: '\u0100' };
    const search = new OrderedSearch({
      runs: [run],
      tail: new Tail(0),
      range,
      isBackwards: false,
      source: cache,
    });
    expect(search.next(1)).toEqual({ missing: [fences.pageOf(5)] });
  });

  it('refuses a page of another kind in the place of one', () => {
    const { run, pages } = made(writeRun(new RunWriter(), entries.slice(0, 10)));
    const leaf = [...pages.values()].map((bytes) => new Page(bytes)).find(({ isLeaf }) => isLeaf)!;
    const source = { get: () => leaf };
    const range = EVERYTHING;
    const search = new OrderedSearch({ runs: [run], tail: new Tail(0), range, isBackwards: false, source });
    expect(() => search.next(1)).toThrow(OpenError);
  });

  it('leaves in an order of pages that says nothing about the order of entries, alone and merged', () => {
    let state = 1;
    // Seeded, so that chance does not fail the test.
    const random = () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state * 0x1_0000 + (state >>> 16);
    };
    for (const pageBytes of [PAGE_PLAIN_BYTES, 150]) {
      const options = { pageBytes, random };
      const parts = [0, 1].map((half) => {
        const own = entries.filter((_, n) => n % 2 === half);
        return made(writeRun(new RunWriter(options), own));
      });
      const pages = new Map(parts.flatMap((part) => [...part.pages]));
      const runs = parts.map(({ run }) => run);
      const merged = made(mergeRuns(new RunWriter(options), runs, true), pages);
      const leaves = leavesOf(merged.steps).sort((a, b) => (a.text(0) < b.text(0) ? -1 : 1));
      expect(leaves.flatMap(textsOf)).toEqual(entries.map(({ place }) => place));
      // Far more pages than wait to be shuffled.
      if (pageBytes === 150) expect(merged.pages.size).toBeGreaterThan(5_000);
      const whole = made(writeRun(new RunWriter(options), entries));
      for (const { steps } of [...parts, merged, whole]) {
        const order = leavesOf(steps).map((leaf) => leaf.text(0));
        const ranks = new Map([...order].sort().map((text, rank) => [text, rank]));
        expect(Math.abs(correlation(order.map((text) => ranks.get(text)!)))).toBeLessThan(0.4);
      }
    }
  });

  it('is merged with newer ones that together exceed half of it', () => {
    const sized = (...sizes: number[]) => mergeFrom(sizes.map((bytes) => ({ bytes }) as Run));
    expect(sized()).toBeUndefined();
    expect(sized(10)).toBeUndefined();
    expect(sized(10, 5)).toBeUndefined();
    expect(sized(10, 6)).toBe(0);
    expect(sized(200, 40, 10, 6)).toBe(2);
    expect(sized(100, 40, 15, 6)).toBe(0);
    expect(sized(10, 10, 10)).toBe(0);
  });

  it('is merged with reads of at most 64 pages, and refused if one of them is missing', () => {
    const { run, pages } = made(writeRun(new RunWriter({ pageBytes: 300 }), entries.slice(0, 9_000), [1]));
    const { steps } = made(mergeRuns(new RunWriter({ pageBytes: 300 }), [run, run], false), pages);
    const reads = steps.filter((step) => step.kind === 'read');
    for (const { ids } of reads) expect(ids.length).toBeLessThanOrEqual(BATCH_PAGES);
    pages.delete([...pages.keys()][5]!);
    expect(() => made(mergeRuns(new RunWriter(), [run, run], false), pages)).toThrow(OpenError);
  });
});

function entryAt(n: number, createdSeq: number): OrderEntry {
  const [entry] = entriesOf(createdSeq, createdSeq + 3, [`\x07${String(n).padStart(8, '0')}\x00\x00`]);
  return entry!;
}

/** Runs steps to their end with the pages to read. */
function made(steps: RunSteps, read: ReadonlyMap<number, Buffer> = new Map()) {
  const pages = new Map<number, Buffer>();
  const all: OrderStep[] = [];
  for (let next = steps.next(undefined); ; next = steps.next(read)) {
    if (next.done === true) return { run: next.value, steps: all, pages };
    all.push(next.value);
    if (next.value.kind === 'write') for (const { id, bytes } of next.value.pages) pages.set(id, bytes);
  }
}

/** The leaves in the order in which they are written. */
function leavesOf(steps: readonly OrderStep[]): Page[] {
  const written = steps.flatMap((step) => (step.kind === 'write' ? step.pages : []));
  return written.filter(({ bytes }) => bytes[0] === 1).map(({ bytes }) => new Page(bytes));
}

/** Correlation of numbers, each rank once, with their order: 1 for sorted ones, about 0 for shuffled ones. */
function correlation(ranks: readonly number[]): number {
  const mean = (ranks.length - 1) / 2;
  let sum = 0;
  let square = 0;
  for (const [at, rank] of ranks.entries()) {
    sum += (at - mean) * (rank - mean);
    square += (at - mean) ** 2;
  }
  return sum / square;
}
