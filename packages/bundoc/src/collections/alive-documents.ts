import type { Ttl } from '@bundoc/shared/contract/collections';
import type { UsableIndex } from '../engine/port/index-port.ts';
import type {
  Awaitable,
  DocumentPage,
  ListedDocument,
  Position,
  StoredDocument,
} from '../engine/port/port.ts';
import type {
  FoundEntry,
  IndexPage,
  IndexSearch,
  SnapshotListQuery,
  StoreSnapshot,
} from '../engine/port/snapshot-port.ts';
import type { OwnWork, Work } from '../work/work.ts';
import { isExpired } from './expiry.ts';

/**
 * Limits on the expired documents that one list skips before it ends with an empty page: their number, their
 * bytes, and pages without any other document.
 */
export const SKIPPED_MAX = 5_000;
const SKIPPED_BYTES_MAX = 33_554_432;
const SKIPPED_PAGES_MAX = 100;

/** Whether a document has not expired. */
export type IsAlive = (document: StoredDocument) => boolean;

export function aliveAt(ttl: Ttl, nowMs: () => number): IsAlive {
  return ({ text }) => !isExpired(ttl, text, nowMs());
}

/** Lists documents until a page has some that have not expired. @param own for a query without work. */
export async function listAlive<Q extends SnapshotListQuery>(
  query: Q,
  list: (query: Q) => Promise<DocumentPage>,
  isAlive: IsAlive,
  own: OwnWork,
): Promise<DocumentPage> {
  using ownOne = query.work === undefined ? own('expiry') : undefined;
  const work = query.work ?? (ownOne as Work);
  const skippedExpired = { documents: 0, bytes: 0 };
  for (let after = query.after, pages = 1; ; pages++) {
    const page = await work.outside(() => list({ ...query, after }));
    const documents: ListedDocument[] = [];
    for (const document of page.documents) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      if (isAlive(document)) documents.push(document);
      else {
        skippedExpired.documents++;
        skippedExpired.bytes += document.text.length;
      }
    }
    // Stop after a bounded number of expired documents: the page ends here, with a cursor.
    const isEnough =
      skippedExpired.documents >= SKIPPED_MAX ||
      skippedExpired.bytes >= SKIPPED_BYTES_MAX ||
      pages >= SKIPPED_PAGES_MAX;
    if (documents.length > 0 || page.unreadable.length > 0 || page.next === undefined || isEnough) {
      work.leave();
      return { ...page, documents, skippedExpired };
    }
    after = page.next;
  }
}

/** A snapshot without the documents that have expired at a time. */
export class AliveSnapshot implements StoreSnapshot {
  readonly expiryAtMs: number;
  readonly #snapshot: StoreSnapshot;
  readonly #isAlive: IsAlive;
  readonly #ownWork: OwnWork;

  /** @param expiry the time, and whether a document is alive then. */
  constructor(
    snapshot: StoreSnapshot,
    expiry: { readonly expiryAtMs: number; readonly isAlive: IsAlive; readonly own: OwnWork },
  ) {
    this.expiryAtMs = expiry.expiryAtMs;
    this.#snapshot = snapshot;
    this.#isAlive = expiry.isAlive;
    this.#ownWork = expiry.own;
  }

  get asOf(): Position | undefined {
    return this.#snapshot.asOf;
  }

  get keptBytes(): number {
    return this.#snapshot.keptBytes;
  }

  list(query: SnapshotListQuery): Promise<DocumentPage> {
    return listAlive(query, (one) => this.#snapshot.list(one), this.#isAlive, this.#ownWork);
  }

  get(id: string): Awaitable<StoredDocument | undefined> {
    const found = this.#snapshot.get(id);
    const unlessExpired = (document: StoredDocument | undefined) => this.#unlessExpired(document);
    return found instanceof Promise ? found.then(unlessExpired) : unlessExpired(found);
  }

  getSync(id: string): StoredDocument | undefined {
    return this.#unlessExpired(this.#snapshot.getSync?.(id));
  }

  total(): Awaitable<number> {
    return this.#snapshot.total();
  }

  usable(): Awaitable<readonly UsableIndex[]> {
    return this.#snapshot.usable();
  }

  search(query: IndexSearch): Awaitable<IndexPage | undefined> {
    const found = this.#snapshot.search(query);
    return found instanceof Promise ? found.then((page) => page && this.#aliveIn(page, query)) : found;
  }

  retain(): void {
    this.#snapshot.retain?.();
  }

  [Symbol.dispose](): void {
    this.#snapshot[Symbol.dispose]();
  }

  /** The page without expired documents. */
  async #aliveIn(page: IndexPage, { work }: IndexSearch): Promise<IndexPage> {
    const entries: FoundEntry[] = [];
    const skippedExpired = { documents: 0, bytes: 0 };
    for (const entry of page.entries) {
      const turn = work?.pause();
      if (turn !== undefined) await turn;
      if (entry.document === undefined || this.#isAlive(entry.document)) {
        entries.push(entry);
        continue;
      }
      skippedExpired.documents++;
      skippedExpired.bytes += entry.document.text.length;
    }
    work?.leave();
    return { ...page, entries, skippedExpired };
  }

  #unlessExpired(document: StoredDocument | undefined): StoredDocument | undefined {
    return document && this.#isAlive(document) ? document : undefined;
  }
}
