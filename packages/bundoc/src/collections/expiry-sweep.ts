import type { Ttl } from '@bundoc/shared/contract/collections';
import { type Clock, earlierMs, type Instant, instant } from '@bundoc/shared/runtime/clock';
import type { ListedDocument, Position, ProjectStore } from '../engine/port/port.ts';
import type { OwnWork } from '../work/work.ts';
import { isExpired } from './expiry.ts';
import { removeStates } from './remove-states.ts';

/** The documents checked for expiry at a time. */
const PAGE = { limit: 200, bytesMax: 2_097_152 };
/** Limits of one round over all collections, however many documents have expired. */
const ROUND_MAX = 5_000;
export const ROUND_PAGES_MAX = 25;

/** The progress of a sweep: to this position in this collection, and through all collections before it. */
export interface SweepPlace {
  readonly collection: string;
  readonly after: Position;
}

/** The result of checking one page of a collection. */
interface SweptPage {
  readonly checked: number;
  readonly removed: number;
}

/** Removes expired documents of a project, page by page. */
export class ExpirySweep {
  readonly #store: Pick<ProjectStore, 'list' | 'commit'>;
  readonly #clock: Clock;
  readonly #started: Instant;
  readonly #ownWork: OwnWork;
  readonly #ttls: () => Iterable<readonly [collection: string, ttl: Ttl]>;
  /** The position where the next round continues, by collection; absent for the beginning. */
  readonly #reached = new Map<string, Position>();
  /** The last collection of the last round. */
  #last: string | undefined;

  /** @param ttls the collections with a time to live, as currently defined. */
  constructor(
    store: Pick<ProjectStore, 'list' | 'commit'>,
    clock: Clock,
    own: OwnWork,
    ttls: () => Iterable<readonly [collection: string, ttl: Ttl]>,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#started = instant(clock);
    this.#ownWork = own;
    this.#ttls = ttls;
  }

  /**
   * Checks some documents of some collections, and continues after them in the next round. It is cheap enough
   * for projects in use to run every second. Collections take turns.
   *
   * @returns the number of removed documents.
   */
  async sweepRound(): Promise<number> {
    let removed = 0;
    let checked = 0;
    let pages = 0;
    const isOver = () => checked >= ROUND_MAX || pages >= ROUND_PAGES_MAX;
    const ttls = [...this.#ttls()];
    const from = ttls.findIndex(([collection]) => collection === this.#last) + 1;
    for (const [collection, ttl] of [...ttls.slice(from), ...ttls.slice(0, from)]) {
      if (isOver()) break;
      this.#last = collection;
      const swept = await this.#sweep(collection, ttl, this.#reached.get(collection) ?? 0, (last) => {
        checked += last?.checked ?? 0;
        // A page with many expired documents suggests more of them.
        if (last !== undefined && (last.removed === 0 || isOver())) return false;
        pages++;
        return true;
      });
      removed += swept.removed;
      if (swept.next === undefined) this.#reached.delete(collection);
      else this.#reached.set(collection, swept.next);
    }
    return removed;
  }

  /**
   * Checks all documents, collection by collection, from the position that an earlier call returned.
   *
   * @param pagesMax pages of documents to check.
   * @returns the number of removed documents, and the position to continue from; no position at the end.
   */
  async sweepAll(
    from: SweepPlace | undefined,
    pagesMax: number,
    signal: AbortSignal,
  ): Promise<{ readonly removed: number; readonly next: SweepPlace | undefined }> {
    let removed = 0;
    let pages = 0;
    const mayContinue = () => pages++ < pagesMax && !signal.aborted;
    for (const [collection, ttl] of [...this.#ttls()].toSorted(byName)) {
      if (from !== undefined && collection < from.collection) continue;
      const after = from?.collection === collection ? from.after : 0;
      const swept = await this.#sweep(collection, ttl, after, mayContinue);
      removed += swept.removed;
      if (swept.next !== undefined) return { removed, next: { collection, after: swept.next } };
    }
    return { removed, next: undefined };
  }

  /**
   * Removes expired documents of a collection, starting from a position.
   *
   * @param mayContinue called before each page with the result of the previous one.
   * @returns the number of removed documents, and the position to continue from; no position at the end.
   */
  async #sweep(
    collection: string,
    ttl: Ttl,
    from: Position,
    mayContinue: (last: SweptPage | undefined) => boolean,
  ): Promise<{ removed: number; next: Position | undefined }> {
    using work = this.#ownWork('expiry');
    let removed = 0;
    let next: Position | undefined = from;
    for (let last: SweptPage | undefined; next !== undefined && mayContinue(last); removed += last.removed) {
      const after: Position = next;
      const page = await work.outside(() => this.#store.list({ collection, after, ...PAGE }));
      const expired: ListedDocument[] = [];
      // Removal cannot be undone, so a clock that is set forward by mistake must not cause it.
      const nowMs = earlierMs(this.#clock, this.#started);
      for (const document of page.documents) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        if (isExpired(ttl, document.text, nowMs)) expired.push(document);
      }
      last = {
        checked: page.documents.length + page.unreadable.length,
        removed: await work.outside(() => removeStates(this.#store, expired)),
      };
      next = page.next;
    }
    return { removed, next };
  }
}

function byName([a]: readonly [string, Ttl], [b]: readonly [string, Ttl]): number {
  return a < b ? -1 : 1;
}
