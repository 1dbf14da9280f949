import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { DocumentPage, Position, StoredDocument } from '../engine/port/port.ts';
import type { SnapshotListQuery, StoreSnapshot } from '../engine/port/snapshot-port.ts';
import { type Path, valueAt } from '../values/path.ts';
import { readValue, type Value } from '../values/value.ts';
import type { Work } from '../work/work.ts';
import type { Evaluated } from './evaluation.ts';
import { type Order, sortKey } from './order.ts';
import type { ScanBudget } from './scan-budget.ts';

/** A document that may match a condition. */
export class Candidate {
  readonly document: StoredDocument;
  /** Position of its creation. */
  readonly position: Position;
  /** Whether the condition is known to hold, without further tests. */
  readonly isExactMatch: boolean;
  #isKept = false;
  #value: Value | undefined;
  #evaluated: Evaluated | undefined;

  constructor(document: StoredDocument, position: Position, isExactMatch: boolean) {
    this.document = document;
    this.position = position;
    this.isExactMatch = isExactMatch;
  }

  /** Its value, parsed on first use. */
  get value(): Value {
    this.#value ??= readValue(this.document.text.toString());
    return this.#value;
  }

  /** Frees the parsed value, and keeps the text and the results of another thread. */
  forgetValue(): void {
    this.#value = undefined;
  }

  /** Marks the document as kept, and returns it. */
  keep(): StoredDocument {
    this.#isKept = true;
    return this.document;
  }

  /** Frees a document that was not kept. */
  forget(): void {
    this.#value = undefined;
    if (!this.#isKept) freeMemory(this.document.text);
  }

  /** Stores the results of another thread. */
  wasEvaluated(evaluated: Evaluated): void {
    this.#evaluated = evaluated;
  }

  /** Its sort key in the order of the query. */
  sortKey(order: Order): string {
    return this.#evaluated?.key ?? sortKey(order, this.value, this.position);
  }

  /** The first value at each of the query's paths. */
  valuesAt(paths: readonly Path[]): readonly (Value | undefined)[] {
    if (this.#evaluated === undefined) return paths.map((path) => valueAt(this.value, path));
    return this.#evaluated.values.map((text) => (text === undefined ? undefined : readValue(text)));
  }
}

/** Runs `run` with the state that the request shows, right after a check that the project's key is usable. */
export type WithSnapshot = <T>(run: (snapshot: StoreSnapshot) => Promise<T>) => Promise<T>;

export interface Scan {
  readonly withSnapshot: WithSnapshot;
  /** Memory that the storage keeps for the state. */
  readonly snapshotBytes: () => number;
  /** Allows the project to be closed until the next use of the snapshot. */
  readonly releaseStore: () => void;
  readonly budget: ScanBudget;
  /** Receives the ids of undecryptable documents. */
  readonly unreadable: string[];
  /** The work that the scan is part of, and ends with. */
  readonly work: Work;
  /**
   * Whether the scan ends behind a position of its order of creation, up to which it has visited all. Called
   * after each candidate, and after each page of a collection. By default the scan ends with the collection.
   */
  readonly endsAt?: ((position: Position) => boolean) | undefined;
}

/** Documents and bytes read, and held, at a time. */
const PAGE_DOCUMENTS = 100;
export const PAGE_BYTES = 1_048_576;
/** Bytes of the first page. Each further page is twice as large, so that a short scan opens few documents. */
const FIRST_PAGE_BYTES = 131_072;

/**
 * All documents of a collection after a position, in pages and in creation order. Each page acquires the
 * project again, so that no key is used after its end.
 *
 * @param wanted number of documents that are likely to be enough.
 * @throws AppError `query_too_expensive`, and those of the store; the signal's reason.
 */
export async function* scanCollection(
  scan: Scan,
  after: number,
  wanted: number,
): AsyncGenerator<readonly Candidate[]> {
  const { budget, unreadable, work } = scan;
  let next: number | undefined = after;
  let limit = Math.min(PAGE_DOCUMENTS, wanted);
  let bytesMax = FIRST_PAGE_BYTES;
  while (next !== undefined) {
    const query: SnapshotListQuery = { after: next, limit, bytesMax, work };
    const page: DocumentPage = await work.outside(() =>
      scan.withSnapshot((snapshot) => snapshot.list(query)),
    );
    unreadable.push(...page.unreadable);
    for (const { text } of page.documents) budget.spend(text.length);
    if (page.skippedExpired !== undefined)
      budget.spend(page.skippedExpired.bytes, page.skippedExpired.documents);
    if (page.documents.length > 0)
      yield page.documents.map((document) => new Candidate(document, document.position, false));
    next = page.next;
    if (next !== undefined && scan.endsAt?.(next) === true) return;
    limit = Math.min(PAGE_DOCUMENTS, limit * 2);
    bytesMax = Math.min(PAGE_BYTES, bytesMax * 2);
  }
}
