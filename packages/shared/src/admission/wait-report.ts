import type { Logger } from '../logs/logger.ts';
import { Minutes } from '../logs/minutes.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Account } from './account.ts';
import type { Gate } from './gate.ts';

/** Shorter waits are not worth a line. */
const LONG_MS = 100;
/** Maximum of projects whose waits are counted in a minute, and of projects that a line names. */
const REMEMBERED_MAX = 4_096;
const NAMED = 5;

interface Waits {
  count: number;
  longestMs: number;
  /** The sum of the project's charges before its first wait, microseconds. */
  readonly beforeUs: number;
}

interface ReportPorts {
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'info'>;
}

/**
 * Logs which projects waited at the gate and what they used, to explain slow answers. A metric cannot, as it
 * has no label for a tenant. The line is logged a minute after the first wait.
 */
export function reportWaits(gate: Gate, { clock, logger }: ReportPorts): Minutes<Map<Account, Waits>> {
  const minutes = new Minutes<Map<Account, Waits>>({
    clock,
    onEnd: ({ value }) => {
      const most = longestIn(value, gate);
      if (most.length > 0) logger.info({ most }, 'waited at the gate');
    },
  });
  const note = (account: Account, ms: number): void => {
    const all = minutes.get('', '') ?? new Map<Account, Waits>();
    if (all.size === 0) minutes.begin('', '', all);
    const waits = all.get(account);
    if (waits !== undefined) {
      waits.count++;
      waits.longestMs = Math.max(waits.longestMs, ms);
    } else if (all.size < REMEMBERED_MAX)
      all.set(account, { count: 1, longestMs: ms, beforeUs: account.chargedUs });
  };
  for (const pool of [gate.places, gate.bytes]) pool.onWait(note);
  return minutes;
}

/** The projects that waited longest; none if all waits were short. */
function longestIn(waits: ReadonlyMap<Account, Waits>, { places, bytes }: Gate) {
  const all = [...waits].sort(([, a], [, b]) => b.longestMs - a.longestMs);
  if ((all[0]?.[1].longestMs ?? 0) < LONG_MS) return [];
  return all.slice(0, NAMED).map(([account, { count, longestMs, beforeUs }]) => ({
    subject: account.subject.id,
    ...(account.id === '' ? {} : { project: account.id }),
    waits: count,
    longestMs: Math.round(longestMs),
    usedMs: Math.round((account.chargedUs - beforeUs) / 1_000),
    places: places.heldOf(account),
    bytes: bytes.heldOf(account),
  }));
}
