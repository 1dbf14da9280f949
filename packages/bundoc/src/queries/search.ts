import { BYTE_US } from '@bundoc/shared/admission/account';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { IndexEntry, KeyRange } from '../engine/port/index-port.ts';
import type { StoreSnapshot } from '../engine/port/snapshot-port.ts';
import { earlierKey, invertOrder, laterKey, positionOf } from '../values/key.ts';
import type { RangePlan } from './plan.ts';
import { Candidate, type Scan } from './scan.ts';

/** Entries looked up at a time. */
const ENTRIES_MAX = 200;
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
  plan: RangePlan,
  after: string,
  wanted: number,
): AsyncGenerator<readonly Candidate[]> {
  // In an ordered plan, each document has one entry.
  const seen = plan.inOrder === undefined ? new Set<string>() : undefined;
  let many = Math.min(ENTRIES_MAX, wanted);
  if (plan.inOrder === undefined) {
    const always = await scan.work.outside(() =>
      scan.withSnapshot(async (snapshot) => requireIndex(snapshot.always?.(plan.index))),
    );
    for (const { id } of always) seen?.add(id);
    yield* read(scan, always);
  }
  const backwards = plan.inOrder === 'backwards';
  for (const whole of plan.ranges) {
    let range: KeyRange | undefined = restOfRange(whole, plan, after);
    while (range !== undefined) {
      const { low, high }: KeyRange = range;
      const found: LookupResult = await scan.work.outside(() =>
        scan.withSnapshot(async (snapshot) => {
          const page = requireIndex(snapshot.search?.(plan.index, { low, high }, backwards, many));
          return { ...takeFromMemory(scan, snapshot, page.entries, plan.isExact, seen), last: page.last };
        }),
      );
      if (found.candidates.length > 0) yield found.candidates;
      yield* read(scan, found.rest);
      if (found.last === undefined) break;
      range = backwards ? { low, high: found.last } : { low: `${found.last}\0`, high };
      many = Math.min(ENTRIES_MAX, many * 2);
    }
  }
}

interface TakenFromMemory {
  readonly candidates: readonly Candidate[];
  /** Entries whose documents must be read. */
  readonly rest: readonly IndexEntry[];
}

interface LookupResult extends TakenFromMemory {
  /** The key from which the lookup continues. */
  readonly last: string | undefined;
}

/**
 * Takes documents from memory in the same turn as their entries, so that the entries are accurate for them.
 */
function takeFromMemory(
  scan: Scan,
  snapshot: StoreSnapshot,
  entries: readonly IndexEntry[],
  isExact: boolean,
  seen: Set<string> | undefined,
): TakenFromMemory {
  const candidates: Candidate[] = [];
  const rest: IndexEntry[] = [];
  let bytes = 0;
  for (const entry of entries) {
    if (seen?.has(entry.id) === true) continue;
    seen?.add(entry.id);
    const document =
      bytes < BYTES_FROM_MEMORY_MAX && rest.length === 0 ? snapshot.getSync?.(entry.id) : undefined;
    if (document === undefined) {
      rest.push(entry);
      continue;
    }
    bytes += document.text.length;
    scan.budget.spend(document.text.length);
    candidates.push(new Candidate(document, positionOf(entry.key), isExact));
  }
  return { candidates, rest };
}

async function* read(scan: Scan, entries: readonly IndexEntry[]): AsyncGenerator<readonly Candidate[]> {
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

/** The rest of a range after the last document of a page. */
function restOfRange({ low, high }: KeyRange, { inOrder, fixed }: RangePlan, after: string): KeyRange {
  if (inOrder === undefined || after === '') return { low, high };
  // The sort key lacks the fixed fields. It has the fields of the order as in the index, or inverted.
  if (inOrder === 'forwards') return { low: laterKey(low, `${fixed}${after}\0`), high };
  return { low, high: earlierKey(high, fixed + invertOrder(after)) };
}

/** Undefined for a deleted or undecryptable document. */
async function readCandidate(
  { unreadable }: Scan,
  snapshot: StoreSnapshot,
  { id, key }: IndexEntry,
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
