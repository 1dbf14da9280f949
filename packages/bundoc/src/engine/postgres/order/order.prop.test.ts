import { runs as runsOf } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ALWAYS, type KeyRange } from '../../port/index-port.ts';
import { entriesOf, type Keys, type OrderEntry } from './entry.ts';
import { decodeManifest, encodeManifest, type Manifest } from './manifest.ts';
import { mergeFrom, mergeRuns } from './merge.ts';
import { Page } from './page.ts';
import { type RunSteps, RunWriter, writeRun } from './run-writer.ts';
import { OrderedSearch } from './search.ts';
import { Tail, type TailRow } from './tail.ts';

const comparePlaces = (a: OrderEntry, b: OrderEntry) => (a.place < b.place ? -1 : Number(a.place > b.place));

/** Few units and many shared beginnings. */
const key = fc.string({ unit: fc.constantFrom('\x02', 'a', 'b', '\xff'), minLength: 1, maxLength: 5 });
const keys: fc.Arbitrary<Keys> = fc.oneof(
  { weight: 6, arbitrary: key.map((one) => [one]) },
  { weight: 2, arbitrary: fc.uniqueArray(key, { minLength: 1, maxLength: 4 }) },
  { weight: 1, arbitrary: fc.constant('too many' as const) },
);
const name = fc.constantFrom(...'0123456789abcdefghij');
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('put' as const), name, keys }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('remove' as const), name }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'merge' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('purge' as const, 'reopen' as const, 'keep' as const, 'return' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('mergeAny' as const), from: fc.nat(5), to: fc.nat(5) }),
  },
);
const query = fc.record({
  low: fc.oneof(fc.constant(''), key),
  high: fc.oneof(fc.constant('\u0100'), key),
  isBackwards: fc.boolean(),
  limit: fc.integer({ min: 1, max: 30 }),
});
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;
type Query = typeof query extends fc.Arbitrary<infer Q> ? Q : never;

/** A collection with one ordered index, whose rows are a naive table and whose pages are in memory. */
class World {
  readonly #random: () => number;
  readonly #pageBytes: number;
  readonly #pages = new Map<number, Buffer>();
  /** Rows as in the database. */
  readonly #rows = new Map<string, TailRow>();
  /** Pages that the node has: it forgets most of them whenever it reads others. */
  #cache = new Map<number, Page>();
  #head = 0;
  #manifest: Manifest = { asOf: 0, builtTo: 'all', indexed: 0, runs: [] };
  #kept = this.#manifest;
  #tail = new Tail(0);
  /** Whether each change since the oldest run was in some tail. */
  isWhole = true;

  constructor(seed: number, pageBytes: number) {
    let state = seed;
    this.#random = () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state * 0x1_0000 + (state >>> 16);
    };
    this.#pageBytes = pageBytes;
  }

  apply(step: Step): void {
    const { kind } = step;
    const { runs } = this.#manifest;
    if (kind === 'put') this.#write(step.name, step.keys);
    else if (kind === 'remove') this.#write(step.name, undefined);
    else if (kind === 'flush') this.#flush();
    else if (kind === 'merge') this.#merge(mergeFrom(runs), runs.length);
    else if (kind === 'mergeAny') this.#merge(step.from, step.to);
    else if (kind === 'keep') this.#kept = this.#manifest;
    else {
      // A tail that is read again does not know which documents its names had before.
      this.isWhole = false;
      if (kind === 'purge') {
        for (const [name, { keys }] of this.#rows) if (keys === undefined) this.#rows.delete(name);
        return;
      }
      if (kind === 'return') this.#manifest = this.#kept;
      this.#openTail();
    }
  }

  /** Makes the runs of all documents that exist, in segments, as a build does; they change meanwhile. */
  build(meanwhile: readonly Step[]): void {
    const since = this.#head;
    const walked = [...this.#rows.values()].sort((a, b) => a.createdSeq - b.createdSeq);
    this.#manifest = { asOf: since, builtTo: 'all', indexed: 0, runs: [] };
    this.#openTail();
    for (let at = 0; at < walked.length; at += 3) {
      const change = meanwhile[at / 3];
      if (change?.kind === 'put') this.#write(change.name, change.keys);
      const entries = walked
        .slice(at, at + 3)
        .flatMap(({ name }) => {
          const row = this.#rows.get(name);
          return row?.keys === undefined || row.seq > since
            ? []
            : entriesOf(row.createdSeq, row.seq, row.keys);
        })
        .sort(comparePlaces);
      const run = this.#made(writeRun(this.#writer(), entries));
      this.#manifest = { ...this.#manifest, runs: [...this.#manifest.runs, run] };
    }
  }

  /** The entries that count, as a naive list. */
  expected({ low, high }: KeyRange): OrderEntry[] {
    return [...this.#rows.values()]
      .flatMap(({ createdSeq, seq, keys }) => (keys === undefined ? [] : entriesOf(createdSeq, seq, keys)))
      .filter(({ place }) => place >= low && place < high)
      .sort(comparePlaces);
  }

  /** The entries that count of a search to its end, a new one every second page. */
  found({ low, high, isBackwards, limit }: Query): OrderEntry[] {
    const found: OrderEntry[] = [];
    let search: OrderedSearch | undefined;
    let after: string | undefined;
    let steps = 0;
    for (;;) {
      const { runs } = this.#manifest;
      search ??= new OrderedSearch({
        runs,
        tail: this.#tail,
        range: { low, high },
        isBackwards,
        source: this.#cache,
        after,
      });
      const step = search.next(limit);
      expect(++steps).toBeLessThan(5_000);
      if ('missing' in step) {
        expect(step.missing.length).toBeGreaterThan(0);
        for (const id of this.#cache.keys()) if (this.#random() % 3 > 0) this.#cache.delete(id);
        for (const id of step.missing) this.#cache.set(id, new Page(this.#pages.get(id)!));
        continue;
      }
      for (const entry of step.entries) if (this.#counts(entry)) found.push(entry);
      if (step.last === undefined) return found;
      after = step.last;
      if (steps % 2 === 0) search = undefined;
    }
  }

  /** Merges everything, and checks that the run has what counts and nothing else. */
  checkWhole(): void {
    this.#flush();
    this.#merge(0, this.#manifest.runs.length);
    const [run] = this.#manifest.runs;
    const expected = this.expected({ low: '', high: '\u0100' });
    expect(run?.entries).toBe(expected.length);
    expect(run?.multiple).toBe(expected.filter(({ isMultiple }) => isMultiple).length);
    expect(run?.changed).toEqual([]);
  }

  /** The rule of validity. */
  #counts({ createdSeq, seq }: OrderEntry): boolean {
    return [...this.#rows.values()].some(
      (row) => row.createdSeq === createdSeq && row.seq === seq && row.keys !== undefined,
    );
  }

  #write(name: string, keys: Keys | undefined): void {
    const former = this.#rows.get(name);
    if (former === undefined && keys === undefined) return;
    const seq = ++this.#head;
    const createdSeq = former?.keys === undefined && keys !== undefined ? seq : (former?.createdSeq ?? seq);
    const row = { name, createdSeq, seq, keys };
    this.#rows.set(name, row);
    this.#tail.apply(row);
  }

  #flush(): void {
    const { seenTo } = this.#tail;
    const changed = this.#manifest.runs.length === 0 ? [] : this.#tail.changed();
    const run = this.#made(writeRun(this.#writer(), this.#tail.entries(), changed));
    expect(run.entries).toBe(this.#tail.size);
    expect(run.multiple).toBe(this.#tail.multiple);
    const runs = [...this.#manifest.runs, run];
    // A manifest of another node may be newer than the tail of this one.
    this.#manifest = decodeManifest(encodeManifest({ ...this.#manifest, asOf: seenTo, runs }));
    if (this.#random() % 2 === 0) this.#tail = this.#tail.after(seenTo);
  }

  #merge(from: number | undefined, to: number): void {
    const { runs } = this.#manifest;
    if (from === undefined || to - from < 2 || to > runs.length) return;
    const merged = this.#made(mergeRuns(this.#writer(), runs.slice(from, to), from === 0));
    this.#manifest = { ...this.#manifest, runs: runs.toSpliced(from, to - from, merged) };
  }

  #openTail(): void {
    this.#tail = new Tail(this.#manifest.asOf);
    const rows = [...this.#rows.values()].filter(({ seq }) => seq > this.#manifest.asOf);
    for (const row of rows.sort((a, b) => a.seq - b.seq)) this.#tail.apply(row);
    this.#tail.sawTo(this.#head);
  }

  #writer(): RunWriter {
    return new RunWriter({ pageBytes: this.#pageBytes, random: this.#random });
  }

  /** Runs steps to their end. */
  #made(steps: RunSteps) {
    for (let next = steps.next(undefined); ; ) {
      if (next.done === true) return next.value;
      const step = next.value;
      if (step.kind === 'write') for (const { id, bytes } of step.pages) this.#pages.set(id, bytes);
      const ids = step.kind === 'read' ? step.ids : [];
      next = steps.next(new Map(ids.map((id) => [id, this.#pages.get(id)!])));
    }
  }
}

const history = fc.record({
  seed: fc.nat(),
  pageBytes: fc.integer({ min: 32, max: 200 }),
  before: fc.array(step, { maxLength: 40, size: 'max' }),
  build: fc.option(fc.array(step, { maxLength: 20 }), { nil: undefined }),
  after: fc.array(step, { maxLength: 120, size: 'max' }),
  queries: fc.array(query, { minLength: 1, maxLength: 6 }),
});

it('finds what a sorted list of all documents has, after any history of writes, merges, builds and purges', () => {
  let wholes = 0;
  fc.assert(
    fc.property(history, ({ seed, pageBytes, before, build, after, queries }) => {
      const world = new World(seed, pageBytes);
      for (const step of before) world.apply(step);
      if (build !== undefined) {
        world.build(build);
        world.isWhole = true;
      }
      for (const [at, step] of after.entries()) {
        world.apply(step);
        const query = queries[at % queries.length]!;
        if (at % 8 === 0) check(world, query);
      }
      for (const query of [...queries, { ...ALWAYS, isBackwards: false, limit: 2 }]) check(world, query);
      if (!world.isWhole) return;
      wholes++;
      world.checkWhole();
      for (const query of queries) check(world, query);
    }),
    { numRuns: runsOf(400, 20_000) },
  );
  // Merges were also checked to leave nothing behind.
  expect(wholes).toBeGreaterThan(0);
});

function check(world: World, query: Query): void {
  const expected = world.expected(query);
  expect(world.found(query)).toEqual(query.isBackwards ? expected.reverse() : expected);
}
