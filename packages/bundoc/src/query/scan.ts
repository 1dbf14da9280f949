import { setImmediate } from 'node:timers/promises';
import type { FoundBy } from '../storage/indexes/port.ts';
import type { DocumentPage, ListQuery, Position, ProjectStore, StoredDocument } from '../storage/port.ts';
import type { ScanBudget } from './scan-budget.ts';
import { readValue, type Value } from './value.ts';

/** A document that a condition may hold for. */
export class Candidate {
  readonly document: StoredDocument;
  /** Of its creation. */
  readonly position: Position;
  /** The condition holds, and nothing is left to be looked at. */
  readonly isSure: boolean;
  #value: Value | undefined;

  constructor(document: StoredDocument, position: Position, isSure: boolean) {
    this.document = document;
    this.position = position;
    this.isSure = isSure;
  }

  /** What is in it, read when it is asked for. */
  get value(): Value {
    this.#value ??= readValue(this.document.text.toString());
    return this.#value;
  }
}

/** Runs something on the project's store, whose key was just found usable. */
export type WithStore = <T>(run: (store: ProjectStore) => Promise<T>) => Promise<T>;

export interface Scan {
  readonly withStore: WithStore;
  readonly collection: string;
  readonly budget: ScanBudget;
  /** Ids of documents that do not open are added here. */
  readonly unreadable: string[];
  /** Ends the scan between two pages. */
  readonly signal: AbortSignal;
}

/** Documents and bytes that are read before other requests get their turn. */
const PAGE_DOCUMENTS = 100;
const PAGE_BYTES = 1_048_576;

/**
 * All documents of a collection behind a position, or those that a blind index finds, some at a time, in the order of their creation. Each page asks for the store anew, so that no key is used
 * beyond its time.
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
  const { collection, budget, unreadable, signal } = scan;
  let next: number | undefined = after;
  let limit = Math.min(PAGE_DOCUMENTS, wanted);
  while (next !== undefined) {
    signal.throwIfAborted();
    const query: ListQuery = { collection, after: next, limit, bytesMax: PAGE_BYTES, found };
    const page: DocumentPage = await scan.withStore((store) => store.list(query));
    unreadable.push(...page.unreadable);
    for (const { text } of page.documents) budget.spend(text.length);
    if (page.passed !== undefined) budget.spend(page.passed.bytes, page.passed.documents);
    if (page.documents.length > 0)
      yield page.documents.map((document) => new Candidate(document, document.position, false));
    next = page.next;
    limit = Math.min(PAGE_DOCUMENTS, limit * 2);
    await setImmediate();
  }
}
