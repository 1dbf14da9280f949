import { TOKEN_AHEAD_S_MAX } from '@bundoc/shared/contract/tokens';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { skewMs } from '@bundoc/shared/runtime/clock-skew';

export interface ClockSkewOptions {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The headers of an answer. */
type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** From this difference on, seconds, it is logged: half of what makes Bundoc refuse a new token. */
export const SKEW_WARN_S = TOKEN_AHEAD_S_MAX / 2;
/** Pause between two warnings, milliseconds. */
const WARN_EVERY_MS = 60_000;
/** How long the largest difference counts, in case several nodes answer and one has the wrong clock. */
const LARGEST_KEPT_MS = 60_000;
/** How long the last answer counts. An idle Bundoc asks BunKMS for its token keys every 5 minutes. */
const KNOWN_MS = 600_000;
/** A change of the own clock by more than this voids what was measured before it. */
const OWN_STEP_MS = 1_000;

interface Measured {
  readonly ms: number;
  readonly at: Instant;
}

/**
 * The skew between BunKMS's clock and this process's own, from the `Date` of answers to other requests. It is
 * the least difference that explains an answer, so a slow answer is no skew. It is unknown while BunKMS is
 * away.
 *
 * A proxy that sets its own `Date` hides the clock of BunKMS; an answer from a cache has an `Age`, and is
 * ignored.
 */
export class ClockSkew {
  readonly #options: ClockSkewOptions;
  #last: Measured | undefined;
  #warnedAtMs: number | undefined;
  #isWarned = false;

  constructor(options: ClockSkewOptions) {
    this.#options = options;
  }

  /** Seconds by which BunKMS's clock is ahead of the own one; negative if behind, undefined if unknown. */
  get seconds(): number | undefined {
    const last = this.#known();
    return last && last.ms / 1_000;
  }

  /** Call it when a request is sent. @returns takes the headers of its answer, once they are here. */
  begin(): (headers: Headers) => void {
    const { clock } = this.#options;
    const sentMs = clock.monotonic();
    return ({ date, age }) => {
      if (typeof date !== 'string' || age !== undefined) return;
      const at = instant(clock);
      // The own clock may have been set in between: what counts is the one that is in force now.
      const ms = skewMs({ date, beforeMs: at.wallMs - (at.monotonicMs - sentMs), afterMs: at.wallMs });
      if (ms === undefined) return;
      const last = this.#known();
      const isSmaller = last !== undefined && Math.abs(ms) < Math.abs(last.ms);
      if (isSmaller && at.monotonicMs - last.at.monotonicMs < LARGEST_KEPT_MS) return;
      this.#last = { ms, at };
      this.report();
    };
  }

  /** Logs a large skew, at most once a minute, and its end. Call it every second. */
  report(): void {
    const { clock, logger } = this.#options;
    const skewS = this.seconds;
    if (skewS === undefined) return;
    if (Math.abs(skewS) < SKEW_WARN_S) {
      if (this.#isWarned) logger.info('the clocks of Bundoc and BunKMS agree again');
      this.#isWarned = false;
      return;
    }
    const nowMs = clock.monotonic();
    if (this.#warnedAtMs !== undefined && nowMs - this.#warnedAtMs < WARN_EVERY_MS) return;
    this.#warnedAtMs = nowMs;
    this.#isWarned = true;
    const way = skewS > 0 ? 'ahead of' : 'behind';
    logger.warn(
      { skewS: Math.round(skewS) },
      `the clocks of Bundoc and BunKMS differ: that of BunKMS is ${Math.round(Math.abs(skewS))} s ${way} Bundoc's, ` +
        'so valid tokens may be refused; synchronize both by NTP',
    );
  }

  #known(): Measured | undefined {
    if (this.#last === undefined) return undefined;
    const { clock } = this.#options;
    const { at } = this.#last;
    const wallMs = clock.now() - at.wallMs;
    const monotonicMs = clock.monotonic() - at.monotonicMs;
    const isStepped = Math.abs(wallMs - monotonicMs) > OWN_STEP_MS;
    return isStepped || monotonicMs > KNOWN_MS ? undefined : this.#last;
  }
}
