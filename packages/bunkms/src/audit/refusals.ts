import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditDraft } from '../records/chain.ts';

export interface RefusalsOptions {
  readonly clock: Clock;
  /** Receives the records; must not throw. */
  readonly write: (record: AuditDraft) => void;
}

/** Who was refused: one caller with a valid token, or many of them (`source`). */
export type Refused = Pick<AuditDraft, 'actor' | 'jti' | 'source'>;

/** Refusals of one caller within {@link WINDOW_MS} that get separate records. */
const SINGLY_MAX = 10;
const WINDOW_MS = 60_000;
/** Callers that are counted separately. All others share a count. */
const CALLERS_MAX = 1_024;
const OTHERS: Refused = { source: 'others' };

interface Window {
  readonly who: Refused;
  readonly first: AuditDraft;
  readonly startMonotonicMs: number;
  readonly startTime: string;
  singly: number;
  counted: number;
}

/**
 * Records refusals of callers with a valid token. For each caller and action, up to ten per minute have
 * separate records. The others share one record with their count at the end of the minute. So every refusal
 * is in the chain, and nobody can fill the disk with them.
 *
 * Memory is bounded: beyond {@link CALLERS_MAX} callers within a minute, the others share one count.
 */
export class BoundedRefusals {
  readonly #options: RefusalsOptions;
  readonly #windows = new Map<string, Window>();

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** @param count how many refusals `draft` stands for. */
  record(who: Refused, draft: AuditDraft, count = 1): void {
    const window = this.#windowOf(who, draft);
    if (window.singly < SINGLY_MAX) {
      window.singly++;
      this.#options.write(draft);
    } else window.counted += count;
  }

  /** Closes the minutes that have passed. Call it every few seconds. */
  sweep(): void {
    for (const [place, window] of this.#windows) if (this.#isOver(window)) this.#end(place, window);
  }

  /** Closes all minutes now, so that a shutdown loses no count. */
  flush(): void {
    for (const [place, window] of this.#windows) this.#end(place, window);
  }

  #windowOf(who: Refused, draft: AuditDraft): Window {
    const isKnown = this.#windows.has(placeOf(who, draft));
    if (!isKnown && this.#windows.size >= CALLERS_MAX) this.sweep();
    const counted = isKnown || this.#windows.size < CALLERS_MAX ? who : OTHERS;
    const place = placeOf(counted, draft);
    const current = this.#windows.get(place);
    if (current !== undefined && !this.#isOver(current)) return current;
    if (current !== undefined) this.#end(place, current);
    const window: Window = {
      who: counted,
      first: draft,
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

  #end(place: string, { who, first, counted, startTime }: Window): void {
    this.#windows.delete(place);
    if (counted === 0) return;
    this.#options.write({
      ...who,
      time: new Date(this.#options.clock.now()).toISOString(),
      severity: first.severity,
      action: first.action,
      outcome: 'refused',
      detail: { count: counted, since: startTime },
    });
  }
}

function placeOf({ jti, source }: Refused, { action }: AuditDraft): string {
  return `${action} ${jti ?? source}`;
}
