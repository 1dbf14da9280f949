import { randomBytes } from 'node:crypto';
import type { OrderEntry } from './entry.ts';
import type { Fence, Run } from './manifest.ts';
import { entryValue, PAGE_BYTES, PAGE_PLAIN_BYTES, PageWriter, sharedUnits } from './page.ts';

/** A new page before it is sealed. */
export interface PlainPage {
  /** Random, up to 2^48 - 1: its number in the project. */
  readonly id: number;
  readonly bytes: Buffer;
}

/** What the caller of a generator of steps does before it continues it. */
export type OrderStep =
  /** Reads and opens pages, at most 64, and continues with their plaintexts by id: `next(plaintexts)`. */
  | { readonly kind: 'read'; readonly ids: readonly number[] }
  /** Stores pages of the new run, at most 64. */
  | { readonly kind: 'write'; readonly pages: readonly PlainPage[] }
  /** May let others work: a few hundred entries were processed. */
  | { readonly kind: 'pause' };

/** Steps that make a run. It may be used once all of its pages are stored. */
export type RunSteps = Generator<OrderStep, Run, Plaintexts>;

/** The answer to a step that reads: plaintexts of pages by id. */
export type Plaintexts = ReadonlyMap<number, Buffer> | undefined;

/** Sizes and chance, which tests set. */
export interface RunOptions {
  /** Bytes of a page before it is sealed. */
  readonly pageBytes?: number;
  /** A random integer up to 2^48 - 1. */
  readonly random?: () => number;
}

/** Pages that are written together, and read together. */
export const BATCH_PAGES = 64;
/** Pages that wait to be written in random order: 8 MiB. */
const POOL_PAGES = 1_024;

/**
 * Makes the pages of a run. Pages leave in random order: the order of rows would show the order of values.
 * The order of more than 1,024 pages is random only in so far as segments are added in random order.
 */
export class RunWriter {
  /** Of the run: 16 hex characters, for the key of its pages. */
  readonly id = randomBytes(8).toString('hex');
  readonly #pageBytes: number;
  /** A random integer up to 2^48 - 1. */
  readonly random: () => number;
  readonly #pool: PlainPage[] = [];
  readonly #leaves: Fence[] = [];
  readonly #changed: number[] = [];
  #leaf: PageWriter | undefined;
  /** Where the next leaf begins, unless its first entry shows it. */
  #low: string | undefined = '';
  #numbers: PageWriter | undefined;
  #pages = 0;
  #entries = 0;
  #multiple = 0;
  #poolMax = POOL_PAGES;

  constructor({ pageBytes = PAGE_PLAIN_BYTES, random = random48 }: RunOptions = {}) {
    this.#pageBytes = pageBytes;
    this.random = random;
  }

  /**
   * The entries that follow are a segment: all between `low` and the `low` of the next larger segment. So
   * segments can be added in any order. Without a call there is a single one.
   */
  segment(low: string): void {
    this.#endLeaf();
    this.#low = low;
  }

  /** Adds an entry, after those before it in its segment. */
  add(entry: OrderEntry): void {
    const value = entryValue(entry);
    if (this.#leaf?.addText(entry.place, value) !== true) {
      const first = this.#low ?? separator(this.#leaf?.last ?? '', entry.place);
      this.#endLeaf();
      this.#leaf = new PageWriter('leaf', this.#pageBytes);
      this.#leaves.push({ first, id: this.random() });
      this.#low = undefined;
      if (!this.#leaf.addText(entry.place, value)) throw new Error('a page has room for an entry');
    }
    this.#entries++;
    if (entry.isMultiple) this.#multiple++;
  }

  /** Adds the creation position of a document whose entries in older runs are out of date. In order. */
  addChanged(createdSeq: number): void {
    if (this.#numbers?.addNumber(createdSeq) === true) return;
    this.#endNumbers();
    this.#numbers = new PageWriter('changed', this.#pageBytes);
    this.#numbers.addNumber(createdSeq);
  }

  /** Some pages to be written, at most 64; undefined while few wait. After {@link finish}, all in turn. */
  take(): readonly PlainPage[] | undefined {
    if (this.#pool.length < this.#poolMax) return undefined;
    // The first ones are random ones then.
    shuffle(this.#pool, this.random, BATCH_PAGES);
    return this.#pool.splice(0, BATCH_PAGES);
  }

  /** The run. Its remaining pages are to be taken and written before a manifest names it. */
  finish(): Run {
    this.#endLeaf();
    this.#endNumbers();
    const fences = this.#writeFences();
    this.#poolMax = 1;
    return {
      id: this.id,
      entries: this.#entries,
      multiple: this.#multiple,
      bytes: this.#pages * PAGE_BYTES,
      fences,
      changed: this.#changed,
    };
  }

  #writeFences(): Fence[] {
    this.#leaves.sort((a, b) => (a.first < b.first ? -1 : 1));
    const fences: Fence[] = [];
    let page: PageWriter | undefined;
    for (const { first, id } of this.#leaves) {
      if (page?.addText(first, id) === true) continue;
      page = new PageWriter('fences', this.#pageBytes);
      const fence = { first, id: this.random() };
      fences.push(fence);
      if (!page.addText(first, id)) throw new Error('a page has room for a fence');
      // Filled by what follows: all pages have one size.
      this.#emit(fence.id, page);
    }
    return fences;
  }

  #endLeaf(): void {
    const leaf = this.#leaves.at(-1);
    if (this.#leaf !== undefined && leaf !== undefined) this.#emit(leaf.id, this.#leaf);
    this.#leaf = undefined;
  }

  #endNumbers(): void {
    if (this.#numbers === undefined) return;
    const id = this.random();
    this.#changed.push(id);
    this.#emit(id, this.#numbers);
    this.#numbers = undefined;
  }

  #emit(id: number, page: PageWriter): void {
    this.#pool.push({ id, bytes: page.bytes });
    this.#pages++;
  }
}

/** Entries between two pauses: well below a millisecond. */
export const ENTRIES_OF_STEP = 256;

/** Entries that are written one after the other, beside others. */
const ENTRIES_OF_SEGMENT = 4_096;

/**
 * Makes a run of sorted entries: a segment of a build, or those of a tail with its changed documents. No step
 * reads.
 */
export function* writeRun(
  writer: RunWriter,
  entries: readonly OrderEntry[],
  changed: readonly number[] = [],
): RunSteps {
  const starts = Array.from(
    { length: Math.ceil(entries.length / ENTRIES_OF_SEGMENT) },
    (_, n) => n * ENTRIES_OF_SEGMENT,
  );
  for (const start of shuffle(starts, writer.random)) {
    const before = entries[start - 1];
    writer.segment(before === undefined ? '' : separator(before.place, entries[start]?.place ?? ''));
    for (let at = start; at < Math.min(start + ENTRIES_OF_SEGMENT, entries.length); at++) {
      writer.add(entries[at] as OrderEntry);
      if (at % ENTRIES_OF_STEP === 0) yield* stepsOf(writer);
    }
  }
  for (const createdSeq of changed) writer.addChanged(createdSeq);
  const run = writer.finish();
  yield* stepsOf(writer);
  return run;
}

/** Writes what waits, or pauses. */
export function* stepsOf(writer: RunWriter): Generator<OrderStep, undefined> {
  for (let pages = writer.take(); pages !== undefined; pages = writer.take()) yield { kind: 'write', pages };
  yield { kind: 'pause' };
}

function random48(): number {
  return randomBytes(6).readUIntBE(0, 6);
}

/** The shortest text after one place and not after the next one. */
function separator(before: string, next: string): string {
  return next.slice(0, sharedUnits(before, next) + 1);
}

/** Puts a list, or its first items, in random order. Fisher and Yates. */
export function shuffle<T>(list: T[], random: () => number, first = list.length): T[] {
  for (let at = 0; at < Math.min(first, list.length); at++) {
    const other = at + (random() % (list.length - at));
    [list[at], list[other]] = [list[other] as T, list[at] as T];
  }
  return list;
}
