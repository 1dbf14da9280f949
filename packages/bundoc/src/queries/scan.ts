import { freeMemory } from '@bundoc/shared/runtime/free-memory';
import type { FoundBy } from '../engine/index-port.ts';
import type { DocumentPage, ListQuery, Position, ProjectStore, StoredDocument } from '../engine/port.ts';
import { type Path, valueAt } from '../values/path.ts';
import { readValue, type Value } from '../values/value.ts';
import type { Work } from '../work/work.ts';
import type { Evaluated } from './evaluation.ts';
import { type Order, sortKey } from './order.ts';
import type { ScanBudget } from './scan-budget.ts';

/** A document that a condition may hold for. */
export class Candidate {
  readonly document: StoredDocument;
  /** Of its creation. */
  readonly position: Position;
  /** The condition holds, and nothing is left to be looked at. */
  readonly isExactMatch: boolean;
  #isKept = false;
  #value: Value | undefined;
  #evaluated: Evaluated | undefined;

  constructor(document: StoredDocument, position: Position, isExactMatch: boolean) {
    this.document = document;
    this.position = position;
    this.isExactMatch = isExactMatch;
  }

  /** What is in it, read when it is asked for. */
  get value(): Value {
    this.#value ??= readValue(this.document.text.toString());
    return this.#value;
  }

  /** Keeps the text alone, and what was found elsewhere. */
  forgetValue(): void {
    this.#value = undefined;
  }

  /** The document, for good. */
  keep(): StoredDocument {
    this.#isKept = true;
    return this.document;
  }

  /** Ends the use of a document that nobody keeps. */
  forget(): void {
    this.#value = undefined;
    if (!this.#isKept) freeMemory(this.document.text);
  }

  /** Takes what another thread has found in it. */
  wasEvaluated(evaluated: Evaluated): void {
    this.#evaluated = evaluated;
  }

  /** Where it stands in the order of the query. */
  sortKey(order: Order): string {
    return this.#evaluated?.key ?? sortKey(order, this.value, this.position);
  }

  /** The first value at each of the paths that the query asks for. */
  valuesAt(paths: readonly Path[]): readonly (Value | undefined)[] {
    if (this.#evaluated === undefined) return paths.map((path) => valueAt(this.value, path));
    return this.#evaluated.values.map((text) => (text === undefined ? undefined : readValue(text)));
  }
}

/** Runs something on the project's store, whose key was just found usable. */
export type WithStore = <T>(run: (store: ProjectStore) => Promise<T>) => Promise<T>;

export interface Scan {
  readonly withStore: WithStore;
  /** Lets the project be closed until the store is asked for again. */
  readonly releaseStore: () => void;
  readonly collection: string;
  readonly budget: ScanBudget;
  /** Ids of documents that do not open are added here. */
  readonly unreadable: string[];
  /** The scan is part of it, and ends with it. */
  readonly work: Work;
}

/** Documents and bytes that are read, and held, at a time. */
const PAGE_DOCUMENTS = 100;
const PAGE_BYTES = 1_048_576;

/**
 * All documents of a collection behind a position, or those that a blind index finds, some at a time, in the
 * order of their creation. Each page asks for the store again, so that no key is used beyond its time.
 *
 * @param wanted how many are likely to be enough.
 * @throws AppError `query_too_expensive`, and those of the store; the signal's reason.
 */
export async function* scanCollection(
  scan: Scan,
  after: number,
  wanted: number,
  found?: FoundBy,
): AsyncGenerator<readonly Candidate[]> {
  const { collection, budget, unreadable, work } = scan;
  let next: number | undefined = after;
  let limit = Math.min(PAGE_DOCUMENTS, wanted);
  while (next !== undefined) {
    const query: ListQuery = { collection, after: next, limit, bytesMax: PAGE_BYTES, found, work };
    const page: DocumentPage = await work.outside(() => scan.withStore((store) => store.list(query)));
    unreadable.push(...page.unreadable);
    for (const { text } of page.documents) budget.spend(text.length);
    if (page.skippedExpired !== undefined)
      budget.spend(page.skippedExpired.bytes, page.skippedExpired.documents);
    if (page.documents.length > 0)
      yield page.documents.map((document) => new Candidate(document, document.position, false));
    next = page.next;
    limit = Math.min(PAGE_DOCUMENTS, limit * 2);
  }
}
