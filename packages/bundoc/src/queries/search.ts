import { BYTE_US } from '@bundoc/shared/admission/account';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { ALWAYS, type KeyRange, rangesBehind } from '../engine/port/index-port.ts';
import type { FoundEntry, IndexPage, StoreSnapshot } from '../engine/port/snapshot-port.ts';
import { invertOrder, positionOf } from '../values/key.ts';
import type { IndexPlan } from './plan.ts';
import { Candidate, PAGE_BYTES, type Scan } from './scan.ts';

/** Entries of one search: a database reads as many documents in one statement. */
const ENTRIES_MAX = 1_001;
/** Bytes of documents taken from memory in one turn, and documents read concurrently from the disk. */
const BYTES_FROM_MEMORY_MAX = 1_048_576;
const READ_TOGETHER = 16;

/**
 * The candidates of a plan, in groups, each document once.
 *
 * @param after the sort key of the last document of the previous page, when the plan is in order; empty for
 *   the first page.
 * @param wanted number of candidates that are likely to be enough; more are looked up on demand.
 * @throws AppError as {@link scanCollection} does.
 */
export async function* searchIndex(
  scan: Scan,
  plan: IndexPlan,
  after: string,
  wanted: number,
): AsyncGenerator<readonly Candidate[]> {
  // In an ordered plan, each document has one entry.
  const seen = plan.inOrder === undefined ? new Set<string>() : undefined;
  const { index, isExact } = plan;
  const backwards = plan.inOrder === 'backwards';
  let ranges: readonly KeyRange[] = rangesOf(plan, after);
  let limit = Math.min(ENTRIES_MAX, wanted);
  while (ranges.length > 0) {
    const query = { index, ranges, backwards, limit, bytesMax: PAGE_BYTES, work: scan.work };
    const found: LookupResult = await scan.work.outside(() =>
      scan.withSnapshot(async (snapshot) => {
        const searched = snapshot.search(query);
        // Without a wait, documents in memory are those of the entries.
        const page = requireIndex(searched instanceof Promise ? await searched : searched);
        return { ...takeDocuments(scan, snapshot, page, isExact, seen), last: page.last };
      }),
    );
    if (found.candidates.length > 0) yield found.candidates;
    yield* read(scan, found.rest);
    if (found.last === undefined) break;
    ranges = rangesBehind(ranges, found.last, backwards);
    limit = Math.min(ENTRIES_MAX, limit * 2);
  }
}

/**
 * The number of entries of an exact plan, which are its matches. Undefined when the documents must be read.
 *
 * @throws AppError as {@link searchIndex} does.
 */
export async function countEntries(
  { work, withSnapshot }: Scan,
  { index, ranges, isExact }: IndexPlan,
): Promise<number | undefined> {
  if (!isExact) return undefined;
  return await work.outside(() =>
    withSnapshot(async (snapshot) => snapshot.count?.({ index, ranges, work })),
  );
}

interface TakenDocuments {
  readonly candidates: readonly Candidate[];
  /** Entries whose documents must be read. */
  readonly rest: readonly FoundEntry[];
}

interface LookupResult extends TakenDocuments {
  /** The key from which the lookup continues. */
  readonly last: string | undefined;
}

/** Takes documents that the search has read, or that are in memory. */
function takeDocuments(
  scan: Scan,
  snapshot: StoreSnapshot,
  { entries, unreadable = [], outOfDate = 0, skippedExpired }: IndexPage,
  isExact: boolean,
  seen: Set<string> | undefined,
): TakenDocuments {
  const candidates: Candidate[] = [];
  const rest: FoundEntry[] = [];
  let bytes = 0;
  for (const entry of entries) {
    if (seen?.has(entry.id) === true) continue;
    seen?.add(entry.id);
    const isNext = bytes < BYTES_FROM_MEMORY_MAX && rest.length === 0;
    const document = entry.document ?? (isNext ? snapshot.getSync?.(entry.id) : undefined);
    if (document === undefined) {
      rest.push(entry);
      continue;
    }
    bytes += document.text.length;
    scan.budget.spend(document.text.length);
    candidates.push(new Candidate(document, positionOf(entry.key), isExact && entry.key >= ALWAYS.high));
  }
  for (const id of unreadable) {
    if (seen?.has(id) === true) continue;
    seen?.add(id);
    scan.unreadable.push(id);
    scan.budget.spend(0);
  }
  scan.budget.spend(0, outOfDate);
  if (skippedExpired !== undefined) scan.budget.spend(skippedExpired.bytes, skippedExpired.documents);
  return { candidates, rest };
}

async function* read(scan: Scan, entries: readonly FoundEntry[]): AsyncGenerator<readonly Candidate[]> {
  for (let at = 0; at < entries.length; at += READ_TOGETHER) {
    const some = entries.slice(at, at + READ_TOGETHER);
    const read = await scan.work.outside(() =>
      scan.withSnapshot((snapshot) => Promise.all(some.map((entry) => readCandidate(scan, snapshot, entry)))),
    );
    const found = read.filter((candidate) => candidate !== undefined);
    for (const { document } of found) scan.budget.spend(document.text.length);
    scan.work.spend(BYTE_US * found.reduce((sum, { document }) => sum + document.text.length, 0));
    // Documents that are gone, such as expired ones, count as visited.
    scan.budget.spend(0, read.length - found.length);
    if (found.length > 0) yield found;
  }
}

/** A long query may lose its index, or find it rebuilt; then its entries would be incomplete. */
function requireIndex<T>(found: T | undefined): T {
  if (found === undefined)
    throw new AppError('overloaded', { detail: 'the index changed during the query', retryAfterS: 1 });
  return found;
}

/** The ranges of a plan; when it is in order, those after the last document of the previous page. */
function rangesOf({ ranges, inOrder, fixed }: IndexPlan, after: string): readonly KeyRange[] {
  if (inOrder === undefined) return [ALWAYS, ...ranges];
  if (after === '') return ranges;
  // The sort key lacks the fixed fields. It has the fields of the order as in the index, or inverted.
  const isBackwards = inOrder === 'backwards';
  return rangesBehind(ranges, fixed + (isBackwards ? invertOrder(after) : after), isBackwards);
}

/** Undefined for a deleted or undecryptable document. */
async function readCandidate(
  { unreadable }: Scan,
  snapshot: StoreSnapshot,
  { id, key }: FoundEntry,
): Promise<Candidate | undefined> {
  try {
    const document = await snapshot.get(id);
    return document && new Candidate(document, positionOf(key), false);
  } catch (error) {
    if (!hasCode(error, 'integrity_error')) throw error;
    unreadable.push(id);
    return undefined;
  }
}
