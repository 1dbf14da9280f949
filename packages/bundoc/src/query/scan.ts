import { setImmediate } from 'node:timers/promises';
import type { DocumentPage, ListedDocument, ListQuery, ProjectStore } from '../storage/port.ts';
import type { ScanBudget } from './scan-budget.ts';
import { readValue, type Value } from './value.ts';

/** A document as a condition looks at it. */
export interface Candidate {
  readonly document: ListedDocument;
  readonly value: Value;
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
 * All documents of a collection behind a position, in the order of their creation. Each page asks for the store anew, so that no key is used
 * beyond its time.
 *
 * @throws AppError `query_too_expensive`, and those of the store; the signal's reason.
 */
export async function* scanCollection(scan: Scan, after: number): AsyncGenerator<Candidate> {
  let next: number | undefined = after;
  while (next !== undefined) {
    scan.signal.throwIfAborted();
    const query: ListQuery = {
      collection: scan.collection,
      after: next,
      limit: PAGE_DOCUMENTS,
      bytesMax: PAGE_BYTES,
    };
    const page: DocumentPage = await scan.withStore((store) => store.list(query));
    scan.unreadable.push(...page.unreadable);
    for (const document of page.documents) {
      scan.budget.spend(document.text.length);
      yield { document, value: readValue(document.text.toString()) };
    }
    next = page.next;
    await setImmediate();
  }
}
