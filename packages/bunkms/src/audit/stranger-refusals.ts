import { type Minute, Minutes, OTHERS } from '@bundoc/shared/logs/minutes';
import type { AuditDraft } from '../records/chain.ts';
import type { RefusalsOptions } from './refusals.ts';

/** Refusals of one address within a minute that get separate records. */
const SINGLY_OF_ADDRESS_MAX = 10;
/** Maximum addresses that are counted separately, and that the record of a minute names. */
const ADDRESSES_MAX = 4_096;
const ADDRESSES_NAMED = 20;

/** Action of the record that counts a minute's refusals. */
const REFUSALS_COUNTED = 'refusals.counted';

/** Maximum records of single refusals within a minute, for all addresses together. */
export const SINGLY_MAX = 100;

interface Refusals {
  readonly singlyByAddress: Map<string, number>;
  readonly byReason: Map<string, number>;
  readonly addresses: BusiestAddresses;
  singly: number;
  counted: number;
  isCritical: boolean;
}

/**
 * Records refusals of strangers. Per minute, up to {@link SINGLY_MAX} have separate records, at most ten of
 * one address. The others share one record at the end of the minute, which counts them by action and code and
 * names the busiest addresses. So every refusal is in the chain, and nobody can fill the disk with refusals,
 * even from many addresses.
 *
 * Memory is bounded: beyond {@link ADDRESSES_MAX} addresses, the counts per address become lower bounds.
 */
export class StrangerRefusals {
  readonly #options: RefusalsOptions;
  /** A timer ends them. A shutdown flushes them, so that no count is lost. */
  readonly minutes: Minutes<Refusals>;

  constructor(options: RefusalsOptions) {
    this.#options = options;
    this.minutes = new Minutes({ clock: options.clock, onEnd: (minute) => this.#count(minute) });
  }

  /**
   * @param network identifies the caller (`callerNetwork`).
   * @param singlyMax limit of single records in the minute, so that one kind of refusal leaves room for
   *   another.
   */
  record(network: string, draft: AuditDraft, singlyMax = SINGLY_MAX): void {
    const refusals = this.#current();
    const singly = refusals.singlyByAddress.get(network) ?? 0;
    if (singly < SINGLY_OF_ADDRESS_MAX && refusals.singly < Math.min(singlyMax, SINGLY_MAX)) {
      refusals.singlyByAddress.set(network, singly + 1);
      refusals.singly++;
      this.#options.write(draft);
      return;
    }
    refusals.counted++;
    refusals.isCritical ||= draft.severity === 'CRITICAL';
    const reason = `${draft.action} ${draft.code ?? draft.outcome}`;
    refusals.byReason.set(reason, (refusals.byReason.get(reason) ?? 0) + 1);
    refusals.addresses.add(network);
  }

  #current(): Refusals {
    const running = this.minutes.get('', '');
    if (running !== undefined) return running;
    const refusals = {
      singlyByAddress: new Map<string, number>(),
      byReason: new Map<string, number>(),
      addresses: new BusiestAddresses(),
      singly: 0,
      counted: 0,
      isCritical: false,
    };
    this.minutes.begin('', '', refusals);
    return refusals;
  }

  #count({ value: { counted, isCritical, byReason, addresses }, since }: Minute<Refusals>): void {
    if (counted === 0) return;
    this.#options.write({
      source: OTHERS,
      time: new Date(this.#options.clock.now()).toISOString(),
      severity: isCritical ? 'CRITICAL' : 'INFO',
      action: REFUSALS_COUNTED,
      outcome: 'refused',
      detail: {
        count: counted,
        since,
        ...Object.fromEntries(byReason),
        busiest: addresses.top(ADDRESSES_NAMED).join(', '),
      },
    });
  }
}

/**
 * Finds the busiest of any number of addresses with the algorithm of Misra and Gries. Without room for
 * another address, every count decreases by one. Any address with more than 1 in {@link ADDRESSES_MAX} of all
 * entries is among them.
 */
class BusiestAddresses {
  readonly #counts = new Map<string, number>();

  add(address: string): void {
    const count = this.#counts.get(address);
    if (count !== undefined || this.#counts.size < ADDRESSES_MAX) {
      this.#counts.set(address, (count ?? 0) + 1);
      return;
    }
    for (const [other, left] of this.#counts)
      if (left === 1) this.#counts.delete(other);
      else this.#counts.set(other, left - 1);
  }

  /** As `address=count`, the busiest first. */
  top(limit: number): string[] {
    const byCount = [...this.#counts].sort(([, one], [, other]) => other - one);
    return byCount.slice(0, limit).map(([address, count]) => `${address}=${count}`);
  }
}
