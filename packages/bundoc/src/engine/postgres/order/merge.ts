import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyRange } from '../../port/index-port.ts';
import type { OrderEntry } from './entry.ts';
import type { Run } from './manifest.ts';
import { Page, partition, readNumbers } from './page.ts';
import { nearest, RunCursor } from './run-cursor.ts';
import {
  BATCH_PAGES,
  ENTRIES_OF_STEP,
  type OrderStep,
  type Plaintexts,
  type RunSteps,
  type RunWriter,
  shuffle,
  stepsOf,
} from './run-writer.ts';

/** Sorts after every place. */
const END = '\u0100';

/**
 * The first of the runs to be merged into one, up to the newest: the newer ones together exceed half of it.
 * Undefined if none is. So a run's entries are written again only after it has grown by half.
 */
export function mergeFrom(runs: readonly Run[]): number | undefined {
  let newer = 0;
  let from: number | undefined;
  for (let at = runs.length - 1; at > 0; at--) {
    newer += (runs[at] as Run).bytes;
    if (2 * newer > (runs[at - 1] as Run).bytes) from = at - 1;
  }
  return from;
}

/**
 * Merges adjacent runs into one, without the entries that a newer one of them supersedes.
 *
 * @param writer a new one, of which nothing else is made.
 * @param runs oldest first.
 * @param isOldest no run is older than these, so the result needs no changed documents.
 * @throws OpenError if the caller does not give a page that it was to read, or it is not of the run.
 */
export function* mergeRuns(writer: RunWriter, runs: readonly Run[], isOldest: boolean): RunSteps {
  const changed: Float64Array[] = [];
  for (const run of runs) changed.push(yield* readChanged(run));
  const isSuperseded = (of: number, createdSeq: number) =>
    changed.some((newer, at) => at > of && includes(newer, createdSeq));
  for (const range of segmentsOf(runs, writer.random)) yield* mergeSegment(writer, runs, range, isSuperseded);
  if (!isOldest) {
    let count = 0;
    for (const createdSeq of unionOf(changed)) {
      writer.addChanged(createdSeq);
      if (++count % ENTRIES_OF_STEP === 0) yield* stepsOf(writer);
    }
  }
  const run = writer.finish();
  yield* stepsOf(writer);
  return run;
}

/** The ranges of the fence pages of the largest run, in random order: what is written tells no order. */
function segmentsOf(runs: readonly Run[], random: () => number): KeyRange[] {
  const largest = runs.reduce<Run | undefined>(
    (a, b) => (a === undefined || b.bytes > a.bytes ? b : a),
    undefined,
  );
  const lows = largest?.fences.map(({ first }) => first) ?? [];
  const ranges = lows.map((low, at) => ({ low: at === 0 ? '' : low, high: lows[at + 1] ?? END }));
  if (ranges.length === 0) return [{ low: '', high: END }];
  return shuffle(ranges, random);
}

function* mergeSegment(
  writer: RunWriter,
  runs: readonly Run[],
  range: KeyRange,
  isSuperseded: (run: number, createdSeq: number) => boolean,
): Generator<OrderStep, undefined, Plaintexts> {
  const held = new Map<number, Buffer>();
  const source = {
    // A merge visits each page once, so the cursor alone keeps it.
    get(id: number): Page | undefined {
      const plaintext = held.get(id);
      held.delete(id);
      return plaintext === undefined ? undefined : new Page(plaintext);
    },
  };
  const bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
  const cursors = runs.map(
    (run) => new RunCursor(run, range, false, source, Math.ceil((BATCH_PAGES * run.bytes) / bytes)),
  );
  writer.segment(range.low);
  for (let count = 1; ; ) {
    const place = nearest(cursors, false);
    if (place === undefined) return;
    if (typeof place === 'object') {
      for (const [id, plaintext] of yield* read([...place].filter((id) => !held.has(id))))
        held.set(id, plaintext);
      continue;
    }
    let entry: OrderEntry | undefined;
    for (const [at, cursor] of cursors.entries()) {
      const { head } = cursor;
      if (head?.place !== place) continue;
      if (!isSuperseded(at, head.createdSeq)) entry = head;
      cursor.next();
    }
    if (entry !== undefined) writer.add(entry);
    if (++count % ENTRIES_OF_STEP === 0) yield* stepsOf(writer);
  }
}

function* readChanged(run: Run): Generator<OrderStep, Float64Array, Plaintexts> {
  const numbers: number[] = [];
  for (const plaintext of (yield* read(run.changed)).values()) {
    for (const number of readNumbers(plaintext)) numbers.push(number);
    yield { kind: 'pause' };
  }
  return Float64Array.from(numbers);
}

/** Reads pages, in the order of their ids. */
function* read(ids: readonly number[]): Generator<OrderStep, Map<number, Buffer>, Plaintexts> {
  const pages = new Map<number, Buffer>();
  for (let at = 0; at < ids.length; at += BATCH_PAGES) {
    const batch = ids.slice(at, at + BATCH_PAGES);
    const plaintexts = yield { kind: 'read', ids: batch };
    for (const id of batch) {
      const plaintext = plaintexts?.get(id);
      if (plaintext === undefined) throw new OpenError();
      pages.set(id, plaintext);
    }
  }
  return pages;
}

function includes(sorted: Float64Array, number: number): boolean {
  return sorted[partition(sorted.length, (at) => (sorted[at] as number) < number)] === number;
}

/** The numbers of some sorted lists, in order, each once. */
function* unionOf(lists: readonly Float64Array[]): Generator<number, undefined> {
  const at = lists.map(() => 0);
  for (;;) {
    const number = Math.min(...lists.map((list, n) => list[at[n] as number] ?? Number.POSITIVE_INFINITY));
    if (number === Number.POSITIVE_INFINITY) return;
    yield number;
    for (const [n, list] of lists.entries())
      if (list[at[n] as number] === number) at[n] = (at[n] as number) + 1;
  }
}
