import type { AuditDraft } from '../records/chain.ts';
import type { RefusalsOptions } from './refusals.ts';

const WINDOW_MS = 60_000;
/** Refusals of one address within a minute that get a record each. */
const SINGLY_OF_ADDRESS_MAX = 10;
/** Addresses that are counted one by one, and those that the record of a minute names. */
const ADDRESSES_MAX = 4_096;
const ADDRESSES_NAMED = 20;
const OTHERS = 'others';

/** Action of the record that counts a minute's refusals. */
const REFUSALS_COUNTED = 'refusals.counted';

/** Records of single refusals within a minute, for all addresses together. */
export const SINGLY_MAX = 100;

interface Window {
  readonly startMonotonicMs: number;
  readonly startTime: string;
  readonly singlyByAddress: Map<string, number>;
  readonly byReason: Map<string, number>;
  readonly addresses: BusiestAddresses;
  singly: number;
  counted: number;
  isCritical: boolean;
}

/**
 * Records what strangers were refused: up to {@link SINGLY_MAX} refusals a minute singly, ten of one address,
 * and the rest as one record when the minute ends, which counts them by action and code and names the busiest
 * addresses. So every refusal is in the chain, and nobody fills the disk with refusals, from however many
 * addresses.
 *
 * Memory is bounded: of {@link ADDRESSES_MAX} addresses and more, the counts of addresses become lower
 * bounds.
 */
export class StrangerRefusals {
  readonly #options: RefusalsOptions;
  #window: Window | undefined;

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /**
   * @param network what the caller can be held to (`callerNetwork`).
   * @param singlyMax how many single records of a minute may there be already; so that one kind of refusal
   * leaves room to another.
   */
  record(network: string, draft: AuditDraft, singlyMax = SINGLY_MAX): void {
    const window = this.#current();
    const singly = window.singlyByAddress.get(network) ?? 0;
    if (singly < SINGLY_OF_ADDRESS_MAX && window.singly < Math.min(singlyMax, SINGLY_MAX)) {
      window.singlyByAddress.set(network, singly + 1);
      window.singly++;
      this.#options.write(draft);
      return;
    }
    window.counted++;
    window.isCritical ||= draft.severity === 'CRITICAL';
    const reason = `${draft.action} ${draft.code ?? draft.outcome}`;
    window.byReason.set(reason, (window.byReason.get(reason) ?? 0) + 1);
    window.addresses.add(network);
  }

  /** Ends the minute if it is over. Call it every few seconds. */
  sweep(): void {
    if (this.#window !== undefined && this.#isOver(this.#window)) this.#end(this.#window);
  }

  /** Ends the minute now, so that nothing that was counted is lost at a shutdown. */
  flush(): void {
    if (this.#window !== undefined) this.#end(this.#window);
  }

  #current(): Window {
    this.sweep();
    const { clock } = this.#options;
    this.#window ??= {
      startMonotonicMs: clock.monotonic(),
      startTime: new Date(clock.now()).toISOString(),
      singlyByAddress: new Map(),
      byReason: new Map(),
      addresses: new BusiestAddresses(),
      singly: 0,
      counted: 0,
      isCritical: false,
    };
    return this.#window;
  }

  #isOver({ startMonotonicMs }: Window): boolean {
    return this.#options.clock.monotonic() - startMonotonicMs >= WINDOW_MS;
  }

  #end({ counted, isCritical, startTime, byReason, addresses }: Window): void {
    this.#window = undefined;
    if (counted === 0) return;
    this.#options.write({
      source: OTHERS,
      time: new Date(this.#options.clock.now()).toISOString(),
      severity: isCritical ? 'CRITICAL' : 'INFO',
      action: REFUSALS_COUNTED,
      outcome: 'refused',
      detail: {
        count: counted,
        since: startTime,
        ...Object.fromEntries(byReason),
        busiest: addresses.top(ADDRESSES_NAMED).join(', '),
      },
    });
  }
}

/**
 * The busiest of any number of addresses, by the algorithm of Misra and Gries: when there is no room for a
 * further one, every count goes down by one. Whatever has more than 1 in {@link ADDRESSES_MAX} of all that
 * was added is among them.
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
