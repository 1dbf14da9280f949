import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { getJson } from '../shell/api.ts';

export interface AuditFilter {
  readonly severity?: string | undefined;
  readonly key?: string | undefined;
  readonly actor?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}

interface Page {
  readonly records: readonly AuditRecord[];
  readonly next_cursor?: string;
}

const WINDOW = 500;
/** Maximum records that the service reads for one page of a filtered list. */
const FILTERED_WINDOW = 10_000;
/** Minimum records to load at a time, and maximum windows to read for them. */
const WANTED = 40;
const WINDOWS_MAX = 40;

/**
 * The latest records up to `upTo`, newest first. The service lists the oldest first, so this walks back
 * through the chain in windows of at most one page.
 *
 * @returns where to load older records; 0 at the beginning of the chain.
 */
export async function latestRecords(
  upTo: number,
  filter: AuditFilter,
  signal: AbortSignal,
): Promise<{ readonly records: readonly AuditRecord[]; readonly olderThan: number }> {
  const step = Object.values(filter).some((value) => value !== undefined) ? FILTERED_WINDOW : WINDOW;
  const found: AuditRecord[] = [];
  let high = upTo;
  for (let windows = 0; high > 0 && found.length < WANTED && windows < WINDOWS_MAX; windows++) {
    const low = Math.max(0, high - step);
    found.push(...(await windowOf(low, high, filter, signal)));
    high = low;
  }
  return { records: found, olderThan: high };
}

/** Records after `low` up to `high`, newest first. */
async function windowOf(
  low: number,
  high: number,
  filter: AuditFilter,
  signal: AbortSignal,
): Promise<AuditRecord[]> {
  const records: AuditRecord[] = [];
  let cursor: string | undefined = String(low);
  while (cursor !== undefined) {
    const page: Page = await getJson<Page>('/audit', { ...filter, limit: WINDOW, cursor }, signal);
    records.push(...page.records.filter(({ seq }) => seq <= high));
    const isPast = Number(page.next_cursor ?? high) >= high;
    cursor = isPast ? undefined : page.next_cursor;
  }
  return records.reverse();
}

/**
 * The records after a place, newest first.
 *
 * @returns `end`, after which later calls continue, so that no record is skipped.
 */
export async function recordsBehind(
  after: number,
  filter: AuditFilter,
  signal: AbortSignal,
): Promise<{ readonly records: readonly AuditRecord[]; readonly end: number }> {
  const query = { ...filter, limit: WINDOW, cursor: String(after) };
  const { records, next_cursor: next } = await getJson<Page>('/audit', query, signal);
  return { records: records.toReversed(), end: Number(next ?? records.at(-1)?.seq ?? after) };
}
