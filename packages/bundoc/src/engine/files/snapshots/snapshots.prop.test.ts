import { hasCode } from '@bundoc/shared/contract/app-error';
import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { put, remove } from '../../../testing/writes.ts';
import { encodePosition } from '../../../values/key.ts';
import { pathOf } from '../../../values/path.ts';
import { readValue } from '../../../values/value.ts';
import { indexKeysOf } from '../../indexes/index-keys.ts';
import { ALWAYS, type IndexEntry } from '../../port/index-port.ts';
import type { DocumentPage } from '../../port/port.ts';
import { type StoreSnapshot, shownPosition } from '../../port/snapshot-port.ts';
import type { FileStore } from '../store/file-store.ts';
import { KeptMemory } from './kept-memory.ts';

const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
const SPECS = [
  { name: 'n', fields: ['n'], unique: false },
  { name: 'tags', fields: ['tags'], unique: false },
  { name: 'both', fields: ['tags', 'n'], unique: false },
];
const MANY = Array.from({ length: 1_001 }, (_, n) => n);

const content = fc
  .record({
    n: fc.integer({ min: 0, max: 4 }),
    tags: fc.oneof(
      { weight: 12, arbitrary: fc.array(fc.constantFrom('x', 'y', 'z'), { maxLength: 3 }) },
      { weight: 1, arbitrary: fc.constant(MANY) },
    ),
    pad: fc.oneof(
      { weight: 8, arbitrary: fc.constant('') },
      { weight: 1, arbitrary: fc.constant('p'.repeat(3_000)) },
    ),
  })
  .map((value) => JSON.stringify(value));
const batch = fc.uniqueArray(
  fc.record({ id: fc.constantFrom(...IDS), text: fc.option(content, { nil: undefined, freq: 3 }) }),
  { minLength: 1, maxLength: 5, selector: ({ id }) => id },
);
type Batch = readonly { readonly id: string; readonly text: string | undefined }[];

const kind = <K extends string>(name: K) => fc.record({ kind: fc.constant(name) });
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('commit' as const), batch }) },
  { weight: 3, arbitrary: kind('take' as const) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('again' as const), at: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), at: fc.nat() }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      at: fc.nat(),
      limit: fc.integer({ min: 1, max: 4 }),
      backwards: fc.boolean(),
      /** Commits between and during the reads of pages. */
      meanwhile: fc.array(batch, { maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('define' as const), many: fc.nat({ max: 3 }) }) },
  { weight: 2, arbitrary: kind('checkpoint' as const) },
  { weight: 1, arbitrary: kind('reopen' as const) },
  { weight: 1, arbitrary: kind('rotate' as const) },
  { weight: 2, arbitrary: kind('reseal' as const) },
  { weight: 1, arbitrary: kind('minute' as const) },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

interface Known {
  readonly id: string;
  readonly rev: string;
  readonly position: number;
  readonly text: string;
}

/** A project, and every state that a commit has left. */
class World {
  readonly #project: ProjectInFiles;
  readonly #disk = ProjectInFiles.disk();
  readonly #timers = new Set<() => void>();
  readonly #cacheBytes: number;
  readonly memory: KeptMemory;
  readonly states: { readonly asOf: number; readonly documents: readonly Known[] }[] = [];
  /** Snapshots in use. Those of a store that was closed are gone. */
  readonly taken: StoreSnapshot[] = [];
  #defined: readonly (typeof SPECS)[number][] = [];
  store!: FileStore;

  constructor(keptBytes: number, cacheBytes: number) {
    this.#cacheBytes = cacheBytes;
    this.memory = new KeptMemory(keptBytes);
    this.#project = new ProjectInFiles({
      keptMemory: this.memory,
      tombstonesMax: 2,
      retainLater: (task) => {
        this.#timers.add(task);
        const timer = setTimeout(() => undefined, 0).unref();
        return timer;
      },
    });
  }

  async open(): Promise<void> {
    if (this.store === undefined) await this.#project.create(this.#disk);
    else {
      await this.store[Symbol.asyncDispose]();
      await expectGone(this.taken.splice(0));
      expect(this.memory.bytes).toBe(0);
    }
    this.store = await this.#project.open(this.#disk, this.#cacheBytes);
    await this.define(this.#defined);
    if (this.states.length === 0) await this.#record();
  }

  async rotate(): Promise<void> {
    this.#project.rotate();
    await this.open();
  }

  async define(specs: readonly (typeof SPECS)[number][]): Promise<void> {
    this.#defined = specs;
    this.store.indexes.define('notes', specs, { rev: '1', wasDefined: false });
    await this.store.indexes.built();
  }

  async commit(writes: Batch): Promise<void> {
    const known = new Set(this.states.at(-1)?.documents.map(({ id }) => id));
    const given = writes.flatMap(({ id, text }) => {
      if (text !== undefined) return [put(id, text)];
      return known.has(id) ? [remove(id)] : [];
    });
    // A write of another collection moves the position, and changes no state. Either may be the last.
    const other = { ...put('other', '{}'), ref: { collection: 'others', id: 'other' } };
    await this.store.commit(given.length % 2 === 0 ? [...given, other] : [other, ...given]);
    await this.#record();
  }

  async take(asOf?: number): Promise<StoreSnapshot> {
    const snapshot = this.store.snapshot('notes', { asOf });
    this.taken.push(snapshot);
    // Those that were built before are usable, and those that became ready since show no earlier state.
    const usable = (await snapshot.usable()).map(({ name }) => name);
    if (asOf === undefined) expect(usable).toEqual(this.#defined.map(({ name }) => name));
    return snapshot;
  }

  minute(): void {
    for (const task of this.#timers) task();
    this.#timers.clear();
  }

  expectedAt(asOf: number): readonly Known[] {
    return this.states.findLast((state) => state.asOf <= asOf)?.documents ?? [];
  }

  async #record(): Promise<void> {
    const asOf = await this.store.position();
    const { documents } = await this.store.list({
      collection: 'notes',
      after: 0,
      limit: 100,
      bytesMax: 1e9,
    });
    this.states.push({
      asOf,
      documents: documents.map(({ metadata, text, position }) => ({
        id: metadata._id,
        rev: metadata._rev,
        position,
        text: text.toString(),
      })),
    });
  }
}

/** Each of them refuses, and shows nothing. */
async function expectGone(snapshots: readonly StoreSnapshot[]): Promise<void> {
  for (const snapshot of snapshots) {
    const gone = { code: 'snapshot_too_old' };
    await expect(snapshot.list({ after: 0, limit: 9, bytesMax: 1e9 })).rejects.toMatchObject(gone);
    expect(() => snapshot.usable()).toThrow('snapshot_too_old');
    expect(() => snapshot.get('a')).toThrow('snapshot_too_old');
    snapshot[Symbol.dispose]();
  }
}

/** The entries of an index as of a state, in its order. */
function entriesOf(documents: readonly Known[], fields: readonly string[]) {
  const entries: IndexEntry[] = [];
  for (const { id, position, text } of documents) {
    const { keys, tooMany } = indexKeysOf(fields.map(pathOf), readValue(text));
    const place = encodePosition(position);
    for (const key of tooMany ? [ALWAYS.low] : keys) entries.push({ id, key: key + place });
  }
  return entries.sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** Compares everything that a snapshot shows with the model. `pause` runs between two steps. */
async function check(
  world: World,
  snapshot: StoreSnapshot,
  { limit, backwards }: { readonly limit: number; readonly backwards: boolean },
  pause: () => Promise<void>,
): Promise<void> {
  const expected = world.expectedAt(shownPosition(snapshot));
  const listed: Known[] = [];
  for (let after: number | undefined = 0; after !== undefined; ) {
    const listing: Promise<DocumentPage> = snapshot.list({ after, limit, bytesMax: 10_000 });
    // Also after a refusal, the next step begins when the commits have ended.
    await Promise.allSettled([listing, pause()]);
    const page: DocumentPage = await listing;
    expect(page.unreadable).toEqual([]);
    for (const { metadata, text, position } of page.documents)
      listed.push({ id: metadata._id, rev: metadata._rev, position, text: text.toString() });
    after = page.next;
  }
  expect(listed).toEqual(expected);
  expect(await snapshot.total()).toBe(expected.length);
  for (const id of IDS) {
    const found = await snapshot.get(id);
    expect([id, found?.text.toString()]).toEqual([id, expected.find((one) => one.id === id)?.text]);
    expect([undefined, found?.metadata._rev]).toContain(snapshot.getSync?.(id)?.metadata._rev);
  }
  for (const spec of SPECS) {
    const index = (await snapshot.usable()).find(({ name }) => name === spec.name);
    // An index that was ready when the snapshot was taken is usable until it is dropped.
    if (index === undefined) continue;
    const model = entriesOf(expected, spec.fields);
    const isSingle = model.length === expected.length && model.every(({ key }) => key >= ALWAYS.high);
    expect(index.isMultiple || isSingle).toBe(true);
    const found: IndexEntry[] = [];
    let range = { low: '', high: '\u0100' };
    for (;;) {
      const page = await snapshot.search?.({ index, ranges: [range], backwards, limit, bytesMax: 1e9 });
      if (page === undefined) break;
      found.push(...page.entries);
      if (page.last === undefined) break;
      range = backwards ? { low: '', high: page.last } : { low: `${page.last}\0`, high: '\u0100' };
      await pause();
    }
    const { high } = ALWAYS;
    const counted = await snapshot.count?.({
      index,
      ranges: [
        { low: '', high },
        { low: high, high: '\u0100' },
      ],
    });
    expect(counted).toBe(model.length);
    // An index may have been dropped or defined again meanwhile; never here, where nothing defines any.
    expect(found).toEqual(backwards ? model.toReversed() : model);
  }
}

async function run(world: World, steps: readonly Step[], mayEnd: boolean): Promise<void> {
  const unlessGone = async (reading: Promise<void>) => {
    await reading.catch((error: unknown) => {
      if (!mayEnd || !hasCode(error, 'snapshot_too_old')) throw error;
    });
  };
  for (const one of steps) {
    if (one.kind === 'commit') await world.commit(one.batch);
    else if (one.kind === 'take') await world.take();
    else if (one.kind === 'again') {
      const { asOf } = world.states[one.at % world.states.length] as { asOf: number };
      try {
        await world.take(asOf);
      } catch (error) {
        if (!hasCode(error, 'snapshot_too_old')) throw error;
      }
    } else if (one.kind === 'end') {
      const [ended] = world.taken.splice(one.at % Math.max(1, world.taken.length), 1);
      if (one.at % 2 === 0) ended?.retain?.();
      ended?.[Symbol.dispose]();
    } else if (one.kind === 'read') {
      const read = world.taken[one.at % Math.max(1, world.taken.length)];
      if (read === undefined) continue;
      const meanwhile = [...one.meanwhile];
      const pause = async () => {
        const next = meanwhile.shift();
        if (next !== undefined) await world.commit(next);
      };
      await unlessGone(check(world, read, one, pause));
    } else if (one.kind === 'define') await world.define(SPECS.slice(0, one.many));
    else if (one.kind === 'checkpoint') await world.store.checkpoint();
    else if (one.kind === 'reopen') await world.open();
    else if (one.kind === 'rotate') await world.rotate();
    else if (one.kind === 'reseal') await world.store.reseal(3);
    else world.minute();
  }
  for (const read of world.taken)
    await unlessGone(check(world, read, { limit: 2, backwards: false }, async () => undefined));
  for (const snapshot of world.taken.splice(0)) snapshot[Symbol.dispose]();
  world.minute();
  expect(world.memory.bytes).toBe(0);
}

it('a snapshot shows the documents and index entries of one commit, whatever is written meanwhile', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 10, maxLength: 60 }),
      fc.constantFrom(0, 2_000, 1_000_000),
      async (steps, cacheBytes) => {
        const world = new World(1e9, cacheBytes);
        await world.open();
        await run(world, steps, false);
        await world.store[Symbol.asyncDispose]();
      },
    ),
    { numRuns: runs(60, 3_000) },
  );
});

it('a snapshot ends rather than mix two states, where little may be kept', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 10, maxLength: 60 }),
      fc.constantFrom(3_000, 12_000),
      async (steps, keptBytes) => {
        const world = new World(keptBytes, 0);
        await world.open();
        await run(world, steps, true);
        expect(world.memory.bytes).toBeLessThanOrEqual(keptBytes);
        await world.store[Symbol.asyncDispose]();
      },
    ),
    { numRuns: runs(30, 1_000) },
  );
});
