import type { Clock } from '@bundoc/shared/clock';
import type { AuditDraft } from './chain.ts';

export interface RefusalsOptions {
  readonly clock: Clock;
  /** Where records go; must not throw. */
  readonly write: (record: AuditDraft) => void;
}

/** Refusals of one address within {@link WINDOW_MS} that get a record each. */
const SINGLY_MAX = 10;
const WINDOW_MS = 60_000;
/** Addresses that are counted one by one; all others share a count. */
const NETWORKS_MAX = 1_024;
const OTHERS = 'others';

interface Window {
  readonly startMonotonicMs: number;
  readonly startTime: string;
  singly: number;
  counted: number;
}

/**
 * Records refused exports of callers without a valid token: up to ten a minute and address each on its own, those
 * beyond as one record with their count when the minute ends. So every refusal is in the chain, and strangers cannot
 * fill the disk with it.
 *
 * Memory is bounded: beyond {@link NETWORKS_MAX} addresses within a minute the others share one count.
 */
export class AnonymousRefusals {
  readonly #options: RefusalsOptions;
  readonly #windows = new Map<string, Window>();

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** @param network the caller's address as `callerNetwork` gives it. */
  record(network: string, draft: AuditDraft): void {
    const window = this.#windowOf(network);
    if (window.singly < SINGLY_MAX) {
      window.singly++;
      this.#options.write(draft);
    } else window.counted++;
  }

  /** Ends the minutes that are over. Call it every few seconds. */
  sweep(): void {
    for (const [network, window] of this.#windows) if (this.#isOver(window)) this.#end(network, window);
  }

  /** Ends every minute now, so that nothing that was counted is lost at a shutdown. */
  flush(): void {
    for (const [network, window] of this.#windows) this.#end(network, window);
  }

  #windowOf(network: string): Window {
    const isKnown = this.#windows.has(network);
    if (!isKnown && this.#windows.size >= NETWORKS_MAX) this.sweep();
    const place = isKnown || this.#windows.size < NETWORKS_MAX ? network : OTHERS;
    const current = this.#windows.get(place);
    if (current !== undefined && !this.#isOver(current)) return current;
    if (current !== undefined) this.#end(place, current);
    const window: Window = {
      startMonotonicMs: this.#options.clock.monotonic(),
      startTime: new Date(this.#options.clock.now()).toISOString(),
      singly: 0,
      counted: 0,
    };
    this.#windows.set(place, window);
    return window;
  }

  #isOver(window: Window): boolean {
    return this.#options.clock.monotonic() - window.startMonotonicMs >= WINDOW_MS;
  }

  #end(network: string, window: Window): void {
    this.#windows.delete(network);
    if (window.counted === 0) return;
    this.#options.write({
      time: new Date(this.#options.clock.now()).toISOString(),
      severity: 'CRITICAL',
      action: 'key.export',
      outcome: 'refused',
      source: network,
      detail: { count: window.counted, since: window.startTime },
    });
  }
}
