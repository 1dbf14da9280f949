import type { Logger } from '../runtime/logger.ts';
import type { Account } from './account.ts';
import type { Gate } from './gate.ts';

/** How often {@link WaitReport.report} is to be called, milliseconds. */
export const REPORT_EVERY_MS = 60_000;
/** Shorter waits are not worth a line. */
const LONG_MS = 100;
/** Projects whose waits are remembered in a minute, and those that a line names. */
const REMEMBERED_MAX = 4_096;
const NAMED = 5;

interface Waits {
  count: number;
  longestMs: number;
  /** What the project had been charged before its first wait, microseconds. */
  readonly beforeUs: number;
}

/**
 * Names in the log who waited at the gate, and what they use, so that a slow answer is explained. A metric
 * cannot: it has no label for a tenant.
 */
export class WaitReport {
  readonly #logger: Pick<Logger, 'info'>;
  readonly #gate: Gate;
  readonly #waits = new Map<Account, Waits>();

  constructor(logger: Pick<Logger, 'info'>, gate: Gate) {
    this.#logger = logger;
    this.#gate = gate;
    for (const pool of [gate.places, gate.bytes]) pool.onWait((account, ms) => this.#note(account, ms));
  }

  /** Logs those who waited longest since the last call, if one of them waited for long. */
  report(): void {
    const all = [...this.#waits].sort(([, a], [, b]) => b.longestMs - a.longestMs);
    this.#waits.clear();
    if ((all[0]?.[1].longestMs ?? 0) < LONG_MS) return;
    const { places, bytes } = this.#gate;
    const most = all.slice(0, NAMED).map(([account, { count, longestMs, beforeUs }]) => ({
      subject: account.subject.id,
      ...(account.id === '' ? {} : { project: account.id }),
      ...{ waits: count, longestMs: Math.round(longestMs) },
      usedMs: Math.round((account.chargedUs - beforeUs) / 1_000),
      ...{ places: places.heldOf(account), bytes: bytes.heldOf(account) },
    }));
    this.#logger.info({ most }, 'waited at the gate');
  }

  #note(account: Account, ms: number): void {
    const waits = this.#waits.get(account);
    if (waits !== undefined) {
      waits.count++;
      waits.longestMs = Math.max(waits.longestMs, ms);
    } else if (this.#waits.size < REMEMBERED_MAX)
      this.#waits.set(account, { count: 1, longestMs: ms, beforeUs: account.chargedUs });
  }
}
