import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { IndexEntry, KeyRange } from '../storage/indexes/port.ts';
import type { ListedDocument, ProjectStore } from '../storage/port.ts';
import { earlierKey, inverted, laterKey, positionOf } from './key.ts';
import type { IndexPlan } from './plan.ts';
import type { Candidate, Scan } from './scan.ts';
import { readValue } from './value.ts';

/** Entries that are looked up at a time. */
const ENTRIES_MAX = 200;

/**
 * The candidates of a plan, each document once. One that has changed since its entry was read comes as it is now.
 *
 * @param after the sort key of the last document of the page before, when the plan is in order; empty for the first page.
 * @param wanted how many candidates are likely to be enough; more are looked up when they are asked for.
 * @throws AppError as {@link scanCollection} does.
 */
export async function* searchIndex(
  scan: Scan,
  plan: IndexPlan,
  after: string,
  wanted: number,
): AsyncGenerator<Candidate> {
  const seen = new Set<string>();
  let many = Math.min(ENTRIES_MAX, wanted);
  if (plan.inOrder === undefined) {
    const always = await scan.withStore(async ({ indexes }) =>
      required(indexes?.always(scan.collection, plan.index)),
    );
    for (let at = 0; at < always.length; at += ENTRIES_MAX)
      yield* candidatesOf(scan, always.slice(at, at + ENTRIES_MAX), seen);
  }
  for (const whole of plan.ranges) {
    let range: KeyRange | undefined = behind(whole, plan, after);
    while (range !== undefined) {
      scan.signal.throwIfAborted();
      const { low, high }: KeyRange = range;
      const backwards = plan.inOrder === 'backwards';
      const entries: readonly IndexEntry[] = await scan.withStore(async ({ indexes }) =>
        required(indexes?.search(scan.collection, plan.index, { low, high }, backwards, many)),
      );
      yield* candidatesOf(scan, entries, seen);
      const last = entries.at(-1);
      if (last === undefined || entries.length < many) break;
      range = backwards ? { low, high: last.key } : { low: `${last.key}\0`, high };
      many = Math.min(ENTRIES_MAX, many * 2);
      if (many === ENTRIES_MAX) await setImmediate();
    }
  }
}

/** An index may go, or be built anew, while a long query uses it: then what it says is not everything. */
function required(entries: readonly IndexEntry[] | undefined): readonly IndexEntry[] {
  if (entries === undefined)
    throw new AppError('overloaded', { detail: 'the index has changed meanwhile', retryAfterS: 1 });
  return entries;
}

/** What is left of a range behind the last document of a page. */
function behind({ low, high }: KeyRange, { inOrder, fixed }: IndexPlan, after: string): KeyRange {
  if (inOrder === undefined || after === '') return { low, high };
  // The fields that are fixed are in no sort key; those of the order are in it as they are in the index, or inverted.
  if (inOrder === 'forwards') return { low: laterKey(low, `${fixed}${after}\0`), high };
  return { low, high: earlierKey(high, fixed + inverted(after)) };
}

async function* candidatesOf(
  scan: Scan,
  entries: readonly IndexEntry[],
  seen: Set<string>,
): AsyncGenerator<Candidate> {
  const unseen = entries.filter(({ id }) => !seen.has(id) && seen.add(id));
  if (unseen.length === 0) return;
  const documents = await scan.withStore((store) =>
    Promise.all(unseen.map((entry) => documentOf(scan, store, entry))),
  );
  const found = documents.filter((document) => document !== undefined);
  for (const { text } of found) scan.budget.spend(text.length);
  for (const document of found) yield { document, value: readValue(document.text.toString()) };
}

/** Undefined for a document that has gone or does not open. */
async function documentOf(
  { collection, unreadable }: Scan,
  store: ProjectStore,
  { id, key }: IndexEntry,
): Promise<ListedDocument | undefined> {
  const ref = { collection, id };
  try {
    const document = store.getAtHand?.(ref) ?? (await store.get(ref));
    return document && { ...document, position: positionOf(key) };
  } catch (error) {
    if (!hasCode(error, 'integrity_error')) throw error;
    unreadable.push(id);
    return undefined;
  }
}
