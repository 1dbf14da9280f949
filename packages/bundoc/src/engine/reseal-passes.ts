import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Clock } from '@bundoc/shared/runtime/clock';

/** Wait before the unreadable documents of a pass are tried again. */
const AGAIN = { firstMs: 60_000, maxMs: 3_600_000 };
/** Passes of a project disturb no others, so their waits need no jitter. */
const NO_JITTER = () => 1;

/**
 * The passes over the documents of a project that re-seal them. A pass that could not read some documents is
 * followed by another one after a wait: a failing disk may recover, and damaged bytes may be repaired.
 */
export class ResealPasses<Place> {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #start: Place;
  /** Where the next step begins; undefined after the end. */
  #from: Place | undefined;
  /** Whether this pass has skipped a document. */
  #hasSkipped = false;
  /** Passes in a row that have skipped a document. */
  #failures = 0;
  #againAtMs = Number.POSITIVE_INFINITY;

  /** @param start the first place of a pass. */
  constructor(clock: Pick<Clock, 'monotonic'>, start: Place) {
    this.#clock = clock;
    this.#start = start;
    this.#from = start;
  }

  /** Where the next step begins; undefined while there is nothing to do. */
  get from(): Place | undefined {
    if (this.#from === undefined && this.#clock.monotonic() >= this.#againAtMs) {
      this.#againAtMs = Number.POSITIVE_INFINITY;
      this.#hasSkipped = false;
      this.#from = this.#start;
    }
    return this.#from;
  }

  /** Ends a step. @param next where the pass continues; undefined at its end. */
  stepped(next: Place | undefined, skipped: number): void {
    this.#from = next;
    if (skipped > 0) this.#hasSkipped = true;
    if (next !== undefined) return;
    this.#failures = this.#hasSkipped ? this.#failures + 1 : 0;
    if (!this.#hasSkipped) return;
    this.#againAtMs = this.#clock.monotonic() + backoffMs(AGAIN, this.#failures, NO_JITTER);
  }
}
