import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';

/** As many keys as a cache keeps of customers. */
const REMEMBERED_MAX = 20_000;
/** As many outside keys as BunKMS has entries for. */
const PAUSES_MAX = 1_000;
/** Bounds of a pause, whatever is answered, seconds. */
const PAUSE_S = { min: 1, max: 15 };
/** After a pause one call goes first. The others wait for it for this time, longer than BunKMS takes. */
const TRIAL_MS = 2_000;

/**
 * What is known of the outside keys that protect projects' keys as well. Calls for such keys have connections
 * of their own, because a customer's service may hang.
 *
 * An outside key that does not answer has a pause, as long as BunKMS says. Meanwhile nothing is asked under
 * it, whatever the number of its projects. After it, one call finds out whether it answers again.
 */
export class OutsideKeys {
  readonly #clock: Clock;
  /** The outside key of a key; empty while its name is unknown. */
  readonly #outsideOf = new LRUCache<string, string>({ max: REMEMBERED_MAX });
  readonly #pausedUntilMs = new LRUCache<string, number>({ max: PAUSES_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes that an outside key protects a key as well. */
  expect(keyName: string): void {
    if (!this.#outsideOf.has(keyName)) this.#outsideOf.set(keyName, '');
  }

  isExpected(keyName: string): boolean {
    return this.#outsideOf.has(keyName);
  }

  /** The outside key of a key; empty while its name is unknown. */
  of(keyName: string): string {
    return this.#outsideOf.get(keyName) ?? '';
  }

  /** The key may be under another outside key now, or under none. */
  changed(keyName: string): void {
    if (this.#outsideOf.has(keyName)) this.#outsideOf.set(keyName, '');
  }

  allChanged(): void {
    this.#pausedUntilMs.clear();
  }

  /** @param outsideKey the one that has answered; undefined when none was asked. */
  answered(keyName: string, outsideKey: string | undefined): void {
    if (outsideKey === undefined) this.changed(keyName);
    else {
      this.#outsideOf.set(keyName, outsideKey);
      this.#pausedUntilMs.delete(outsideKey);
    }
  }

  /**
   * Runs a call about a key, and learns from its refusal.
   *
   * @throws AppError `kms_unavailable` at once during a pause, and what the call throws.
   */
  async during<T>(keyName: string, call: () => Promise<T>): Promise<T> {
    const tried = this.#requireNoPause(keyName);
    try {
      const answer = await call();
      this.#pausedUntilMs.delete(tried);
      return answer;
    } catch (error) {
      // A refusal that is not one of the outside key tells nothing of it: the next call tries it.
      if (this.#pausedUntilMs.has(tried)) this.#pausedUntilMs.set(tried, this.#clock.monotonic());
      this.#learn(keyName, error);
      throw error;
    }
  }

  /** @returns the outside key that this call tries after a pause; empty without one. */
  #requireNoPause(keyName: string): string {
    const outsideKey = this.of(keyName);
    const untilMs = this.#pausedUntilMs.get(outsideKey);
    if (untilMs === undefined) return '';
    const nowMs = this.#clock.monotonic();
    if (nowMs < untilMs)
      throw new AppError('kms_unavailable', {
        outsideKey,
        detail: awayDetail(outsideKey),
        retryAfterS: (untilMs - nowMs) / 1_000,
      });
    this.#pausedUntilMs.set(outsideKey, nowMs + TRIAL_MS);
    return outsideKey;
  }

  #learn(keyName: string, error: unknown): void {
    if (!(error instanceof AppError) || error.outsideKey === undefined) return;
    const { outsideKey } = error;
    // One that denies has answered.
    this.answered(keyName, outsideKey);
    if (error.code !== 'kms_unavailable') return;
    const pauseS = Math.min(PAUSE_S.max, Math.max(PAUSE_S.min, error.retryAfterS ?? 0));
    this.#pausedUntilMs.set(outsideKey, this.#clock.monotonic() + pauseS * 1_000);
  }
}

/** For the caller: BunKMS itself answers. */
export function awayDetail(outsideKey: string): string {
  return `the outside key ${outsideKey} does not answer`;
}

/** Whether an outside key protects a wrapped DEK as well, in base64 (`docs/formats/wrapped-key.md`). */
export function isUnderOutsideKey(wrapped: string): boolean {
  return Buffer.from(wrapped.slice(0, 4), 'base64')[0] === 2;
}
