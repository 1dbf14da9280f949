import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { type AuditReceipt, type KeyLease, LEASE_TTL_MS, type LeasePage } from '@bundoc/shared/contract/keys';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { KeyRecord } from '../records/key-record.ts';
import type { BackwardPage } from '../store/page.ts';
import type { KeyDeps } from './stored-key.ts';

const PAGE = 100;
/**
 * How much longer than its lease a key may be in use, milliseconds: its holder uses another clock, and the
 * answer took time.
 */
const MARGIN_MS = 5_000;
const LONGEST_MS = LEASE_TTL_MS + MARGIN_MS;

/** How long BunKMS keeps the key of an encryption in memory, milliseconds. Later uses unwrap it again. */
const OPENED_MS = 300_000;
/** Uses of one token within a minute share a record. The last of them is not later. */
const SHARED_MS = 60_000;

/**
 * How long a released key may be kept, milliseconds. A customer who takes an outside key back knows when the
 * last one ends.
 *
 * @param leaseTtlMs of the service.
 */
export function leaseTtlOf(leaseTtlMs: number, { outside }: KeyRecord): number {
  return outside === null ? leaseTtlMs : Math.min(leaseTtlMs, outside.leaseTtlS * 1_000);
}

/** How long BunKMS keeps a key open for `encrypt`, `decrypt` and `rewrap`, milliseconds. */
export function openedMs(leaseTtlMs: number, record: KeyRecord): number {
  return record.outside === null ? OPENED_MS : Math.min(OPENED_MS, leaseTtlOf(leaseTtlMs, record));
}

/** The id of a lease: the place of the release in the audit chain. */
export function leaseIdOf({ seq }: Pick<AuditReceipt, 'seq'>): string {
  return String(seq);
}

/**
 * Who may hold a key now, newest first. The list comes from the audit chain, which has a record of every
 * release before it happens. So no release is missing after a crash, and no second list can disagree.
 *
 * BunKMS itself keeps a key open for encryption. For a key of a customer, the first page lists that as well,
 * once for each version, from the record of its last use by any node. A version without one is not kept.
 *
 * It uses the wall clock. If that was set forward, leases that their holders still use are hidden, for 15
 * minutes at most.
 *
 * @throws AppError `key_not_found`.
 */
export async function listLeases(
  { store, audit, clock, leaseTtlMs }: KeyDeps & { readonly leaseTtlMs: number },
  name: string,
  page: { readonly before?: number | undefined; readonly limit: number },
  caller: Caller,
): Promise<LeasePage> {
  // Even for a damaged or destroyed key, because its holders still matter.
  const stored = await store.findKey(name, 'current');
  if (stored === undefined) throw new AppError('key_not_found');
  const nowMs = clock.now();
  const { items, next } = await store.listExports(name, isoOf(nowMs - LEASE_TTL_MS), page);
  const { record } = stored;
  const opened =
    page.before !== undefined || record === undefined || record.outside === null
      ? []
      : await openedLeases(store, name, nowMs, openedMs(leaseTtlMs, record));
  const leases = [...opened, ...items.map(leaseOf)].filter(({ until }) => Date.parse(until) > nowMs);
  const more = { key: name, detail: { count: leases.length } };
  await audit.record(draftNow({ clock }, caller, 'key.leases', more));
  return { leases, ...defined({ next_cursor: next?.toString() }) };
}

/** What BunKMS keeps open, by the last use of each version. */
async function openedLeases(
  store: KeyDeps['store'],
  name: string,
  nowMs: number,
  keptMs: number,
): Promise<KeyLease[]> {
  const last = new Map<number, KeyLease>();
  const from = isoOf(nowMs - SHARED_MS - keptMs);
  for (let before: number | undefined, more = true; more; more = before !== undefined) {
    const { items, next } = await store.listInnerUses(name, from, { ...defined({ before }), limit: PAGE });
    for (const record of items) {
      const until = isoOf(Date.parse(record.time) + SHARED_MS + keptMs);
      for (const version of versionsOpenedBy(record))
        if (!last.has(version)) last.set(version, { ...leaseOf(record), version, until, kept_by: 'bunkms' });
    }
    before = next;
  }
  return [...last.values()];
}

/** The versions that a use has opened: a rewrap opens the former one as well. */
export function versionsOpenedBy({ version, detail }: AuditRecord): number[] {
  return [version, detail?.['from_version']].filter((one) => typeof one === 'number');
}

/**
 * The time until which a client may hold a key from those exports; undefined when none does.
 *
 * @param read returns records of releases from `from` on, newest first.
 * @param concerns filters the releases that matter.
 */
export async function liveUntil(
  clock: Pick<Clock, 'now'>,
  read: (
    from: string,
    page: { readonly before?: number; readonly limit: number },
  ) => Promise<BackwardPage<AuditRecord>>,
  concerns: (record: AuditRecord) => boolean = () => true,
): Promise<string | undefined> {
  const nowMs = clock.now();
  let latestMs = nowMs;
  const answer = () => (latestMs > nowMs ? isoOf(latestMs) : undefined);
  for (let before: number | undefined, more = true; more; ) {
    const page = { ...defined({ before }), limit: PAGE };
    const { items, next } = await read(isoOf(nowMs - LONGEST_MS), page);
    for (const record of items) {
      // This release and all earlier ones end at `latestMs` or before.
      if (Date.parse(record.time) + LONGEST_MS <= latestMs) return answer();
      if (concerns(record)) latestMs = Math.max(latestMs, Date.parse(leaseOf(record).until) + MARGIN_MS);
    }
    before = next;
    more = next !== undefined;
  }
  return answer();
}

/** The refusal of a take-over before the last lease has ended. */
export function leaseLive(until: string): AppError {
  return new AppError('lease_live', { until, detail: `a copy of a key may be in use until ${until}` });
}

function leaseOf(record: AuditRecord): KeyLease {
  const ttlMs = record.detail?.['lease_ttl_ms'];
  return {
    id: leaseIdOf(record),
    version: record.version ?? 1,
    subject: record.actor ?? 'unknown',
    jti: record.jti ?? 'unknown',
    source: record.source ?? 'unknown',
    issued_at: record.time,
    until: isoOf(Date.parse(record.time) + (typeof ttlMs === 'number' ? ttlMs : LEASE_TTL_MS)),
  };
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
