import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyRange } from '../../port/index-port.ts';
import type { OrderEntry } from './entry.ts';
import type { Run } from './manifest.ts';
import { type Page, partition } from './page.ts';
import { BATCH_PAGES } from './run-writer.ts';

/** Decoded pages of entries and fences, as far as they are at hand. */
export interface PageSource {
  get(id: number): Page | undefined;
}

/** The entries of one sorted list. */
export interface EntryCursor {
  /** The present entry, once {@link load} has returned true; undefined at the end of the range. */
  readonly head: OrderEntry | undefined;
  /** Makes the head known. If a page is missing: false, and adds its number and those likely to be next. */
  load(missing: Set<number>): boolean;
  /** Goes to the next entry. */
  next(): void;
}

/** The numbers from one to another, in either direction. */
class Span {
  #low: number;
  #high: number;
  readonly #isBackwards: boolean;

  constructor(low: number, high: number, isBackwards: boolean) {
    this.#low = low;
    this.#high = high;
    this.#isBackwards = isBackwards;
  }

  take(): number | undefined {
    if (this.#low > this.#high) return undefined;
    return this.#isBackwards ? this.#high-- : this.#low++;
  }

  /** The next ones, without taking them. */
  peek(count: number): number[] {
    const all = Math.min(count, this.#high - this.#low + 1);
    return Array.from({ length: all }, (_, n) => (this.#isBackwards ? this.#high - n : this.#low + n));
  }
}

const NONE = new Span(0, -1, false);

/** The entries of a run in a range, in either direction. */
export class RunCursor implements EntryCursor {
  readonly #run: Run;
  readonly #range: KeyRange;
  readonly #isBackwards: boolean;
  readonly #source: PageSource;
  readonly #ahead: number;
  /** Fence pages that are still to be read, leaves of the present one, and entries of the present leaf. */
  readonly #fenceSpan: Span;
  #leafSpan = NONE;
  #entrySpan = NONE;
  #fences: Page | undefined;
  #leaf: Page | undefined;
  #head: OrderEntry | undefined;
  #isKnown = false;

  /** @param ahead leaves to ask for together with a missing one. */
  constructor(run: Run, range: KeyRange, isBackwards: boolean, source: PageSource, ahead: number) {
    this.#run = run;
    this.#range = range;
    this.#isBackwards = isBackwards;
    this.#source = source;
    this.#ahead = Math.min(ahead, BATCH_PAGES - 1);
    const { fences } = run;
    this.#fenceSpan = this.#pagesIn((text) =>
      partition(fences.length, (at) => (fences[at]?.first ?? '') < text),
    );
  }

  get head(): OrderEntry | undefined {
    return this.#head;
  }

  /** @throws OpenError for a page of another kind. */
  load(missing: Set<number>): boolean {
    while (!this.#isKnown) {
      const item = this.#entrySpan.take();
      if (
        item !== undefined ||
        (this.#leafSpan.peek(1).length === 0 && this.#fenceSpan.peek(1).length === 0)
      ) {
        this.#head = item === undefined ? undefined : this.#leaf?.entry(item);
        this.#isKnown = true;
      } else if (!this.#openNext(missing)) return false;
    }
    return true;
  }

  next(): void {
    this.#isKnown = false;
  }

  /** Opens the next leaf, or the next fence page if the present one has no more. False if it is missing. */
  #openNext(missing: Set<number>): boolean {
    const { low, high } = this.#range;
    const fences = this.#fences;
    const [leaf] = this.#leafSpan.peek(1);
    if (fences !== undefined && leaf !== undefined) {
      const page = this.#page(fences.pageOf(leaf), true);
      if (page === undefined) {
        for (const item of this.#leafSpan.peek(1 + this.#ahead)) missing.add(fences.pageOf(item));
        return false;
      }
      this.#leafSpan.take();
      this.#leaf = page;
      this.#entrySpan = new Span(page.countBefore(low), page.countBefore(high) - 1, this.#isBackwards);
      return true;
    }
    const [fence] = this.#fenceSpan.peek(1);
    const { id } = this.#run.fences[fence ?? 0] as { id: number };
    const page = this.#page(id, false);
    if (page === undefined) {
      missing.add(id);
      return false;
    }
    this.#fenceSpan.take();
    this.#fences = page;
    this.#leafSpan = this.#pagesIn((text) => page.countBefore(text));
    return true;
  }

  /** Pages that may have entries of the range: from the last one that begins at or before its beginning. */
  #pagesIn(countBefore: (text: string) => number): Span {
    const { low, high } = this.#range;
    return new Span(Math.max(0, countBefore(`${low}\0`) - 1), countBefore(high) - 1, this.#isBackwards);
  }

  #page(id: number, isLeaf: boolean): Page | undefined {
    const page = this.#source.get(id);
    if (page !== undefined && page.isLeaf !== isLeaf) throw new OpenError();
    return page;
  }
}

/**
 * Loads all cursors.
 *
 * @returns the place of the first head, or of the last one backwards; undefined at the end of all ranges; the
 * numbers of missing pages if there are any.
 */
export function nearest(
  cursors: readonly EntryCursor[],
  isBackwards: boolean,
): string | undefined | Set<number> {
  const missing = new Set<number>();
  let place: string | undefined;
  for (const cursor of cursors) {
    if (!cursor.load(missing)) continue;
    const { head } = cursor;
    if (head === undefined) continue;
    if (place === undefined || (isBackwards ? head.place > place : head.place < place)) place = head.place;
  }
  return missing.size > 0 ? missing : place;
}
