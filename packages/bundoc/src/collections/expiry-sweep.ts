import type { Ttl } from '@bundoc/shared/contract/collections';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ListedDocument, Position, ProjectStore } from '../engine/port.ts';
import type { OwnWork } from '../work/work.ts';
import { isExpired } from './expiry.ts';
import { removeStates } from './remove-states.ts';

/** Documents that are looked at for having expired, at a time. */
const PAGE = { limit: 200, bytesMax: 2_097_152 };
/** Documents, and pages, that a round looks at, however many have expired and in how many collections. */
const ROUND_MAX = 5_000;
export const ROUND_PAGES_MAX = 25;

/**
 * How far a look for expired documents has come: up to here in this collection, and through all before it.
 */
export interface SweepPlace {
  readonly collection: string;
  readonly after: Position;
}

/** A page of a collection that was looked at. */
interface SweptPage {
  readonly looked: number;
  readonly removed: number;
}

/** Removes expired documents of a project, a page of a collection after another. */
export class ExpirySweep {
  readonly #store: Pick<ProjectStore, 'list' | 'commit'>;
  readonly #clock: Clock;
  readonly #ownWork: OwnWork;
  readonly #ttls: () => Iterable<readonly [collection: string, ttl: Ttl]>;
  /** Where rounds go on, by collection; absent at its beginning. */
  readonly #reached = new Map<string, Position>();
  /** The last collection of the last round. */
  #last: string | undefined;

  /** @param ttls the collections whose documents expire, as they are defined now. */
  constructor(
    store: Pick<ProjectStore, 'list' | 'commit'>,
    clock: Clock,
    own: OwnWork,
    ttls: () => Iterable<readonly [collection: string, ttl: Ttl]>,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#ownWork = own;
    this.#ttls = ttls;
  }

  /**
   * Looks at some documents of some collections, and goes on behind them the next time: what projects that
   * are in use can bear every second. Collections take turns.
   *
   * @returns how many were removed.
   */
  async goRound(): Promise<number> {
    let removed = 0;
    let looked = 0;
    let pages = 0;
    const isOver = () => looked >= ROUND_MAX || pages >= ROUND_PAGES_MAX;
    const ttls = [...this.#ttls()];
    const from = ttls.findIndex(([collection]) => collection === this.#last) + 1;
    for (const [collection, ttl] of [...ttls.slice(from), ...ttls.slice(0, from)]) {
      if (isOver()) break;
      this.#last = collection;
      const swept = await this.#sweep(collection, ttl, this.#reached.get(collection) ?? 0, (last) => {
        looked += last?.looked ?? 0;
        // Where many have expired, more have.
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
   * Goes through all documents, one collection after another, from the place that an earlier call has come
   * to.
   *
   * @param pagesMax pages of documents that are looked at.
   * @returns how many were removed, and where to go on; no place when it has come to the end.
   */
  async goThrough(
    from: SweepPlace | undefined,
    pagesMax: number,
    signal: AbortSignal,
  ): Promise<{ readonly removed: number; readonly next: SweepPlace | undefined }> {
    let removed = 0;
    let pages = 0;
    const mayGoOn = () => pages++ < pagesMax && !signal.aborted;
    for (const [collection, ttl] of [...this.#ttls()].toSorted(byName)) {
      if (from !== undefined && collection < from.collection) continue;
      const after = from?.collection === collection ? from.after : 0;
      const swept = await this.#sweep(collection, ttl, after, mayGoOn);
      removed += swept.removed;
      if (swept.next !== undefined) return { removed, next: { collection, after: swept.next } };
    }
    return { removed, next: undefined };
  }

  /**
   * Removes what has expired of a collection, from a place on.
   *
   * @param mayGoOn asked before each page, and told the one before it.
   * @returns how many, and where to go on; no place at the end.
   */
  async #sweep(
    collection: string,
    ttl: Ttl,
    from: Position,
    mayGoOn: (last: SweptPage | undefined) => boolean,
  ): Promise<{ removed: number; next: Position | undefined }> {
    using work = this.#ownWork('expiry');
    let removed = 0;
    let next: Position | undefined = from;
    for (let last: SweptPage | undefined; next !== undefined && mayGoOn(last); removed += last.removed) {
      const after: Position = next;
      const page = await work.outside(() => this.#store.list({ collection, after, ...PAGE }));
      const expired: ListedDocument[] = [];
      for (const document of page.documents) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        if (isExpired(ttl, document.text, this.#clock.now())) expired.push(document);
      }
      last = {
        looked: page.documents.length + page.unreadable.length,
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
