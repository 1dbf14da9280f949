import type { Clock } from '@bundoc/shared/runtime/clock';
import { RateLimit } from '@bundoc/shared/runtime/rate-limit';

/** How often things may be done; 0 is no limit. */
export interface LimitRates {
  /**
   * Exports a second of one subject: a token, its renewals and what it issued, unless an operator issues for
   * tenants.
   */
  readonly exportsPerToken: number;
  /** Exports a second of one key, for all callers. */
  readonly exportsPerKey: number;
  /**
   * Items a second that are encrypted, decrypted or rewrapped for one subject: a token, its renewals and what
   * it issued, unless an operator issues for tenants.
   */
  readonly cryptoPerToken: number;
  /** The same under one key, for all callers. */
  readonly cryptoPerKey: number;
  /**
   * Destructions of keys and versions a second, and deletions that are scheduled, of one subject: a token,
   * its renewals and what it issued, unless an operator issues for tenants.
   */
  readonly destructionsPerToken: number;
  /**
   * Renewals a minute of one subject: a token, its renewals and what it issued, unless an operator issues for
   * tenants.
   */
  readonly renewalsPerMinute: number;
  /**
   * Tokens a second that one subject issues: a token, its renewals and what it issued, unless an operator
   * issues for tenants.
   */
  readonly issuesPerToken: number;
}

/** After a pause, this many seconds' worth may come at once: a node that starts cold fetches all its keys. */
const BURST_S = 5;
/** The same for destructions. */
const DESTRUCTION_BURST_S = 10;
/** Streams of events that one subject may open: each is on record, and may begin with all revoked tokens. */
const STREAMS = { perSecond: 1, burst: 60 };
/**
 * Advances of storages by one subject: each node advances as it starts, again when another was faster, and
 * each hour.
 */
const ADVANCES = { perSecond: 10, burst: 1_000 };

/**
 * The limits of an unsealed service. Each is asked once the caller is authorised and before anything is
 * looked up, so that a refusal says nothing of what exists.
 *
 * One class, because it has a method for each action that is limited.
 */
export class Limits {
  readonly #tokens: RateLimit;
  readonly #keys: RateLimit;
  readonly #cryptoTokens: RateLimit;
  readonly #cryptoKeys: RateLimit;
  readonly #renewals: RateLimit;
  readonly #issues: RateLimit;
  readonly #destructions: RateLimit;
  readonly #streams: RateLimit;
  readonly #advances: RateLimit;

  constructor(rates: LimitRates, clock: Clock) {
    const perSecond = (rate: number) =>
      new RateLimit({ clock, perSecond: rate, burst: Math.max(1, rate * BURST_S) });
    this.#tokens = perSecond(rates.exportsPerToken);
    this.#keys = perSecond(rates.exportsPerKey);
    this.#cryptoTokens = perSecond(rates.cryptoPerToken);
    this.#cryptoKeys = perSecond(rates.cryptoPerKey);
    this.#issues = perSecond(rates.issuesPerToken);
    const { renewalsPerMinute } = rates;
    this.#renewals = new RateLimit({
      clock,
      perSecond: renewalsPerMinute / 60,
      burst: Math.max(1, renewalsPerMinute),
    });
    const { destructionsPerToken } = rates;
    this.#destructions = new RateLimit({
      clock,
      perSecond: destructionsPerToken,
      burst: Math.max(1, destructionsPerToken * DESTRUCTION_BURST_S),
    });
    this.#streams = new RateLimit({ clock, ...STREAMS });
    this.#advances = new RateLimit({ clock, ...ADVANCES });
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeExport(subject: string, keyName: string): void {
    this.#tokens.take(subject);
    this.#keys.take(keyName);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeCrypto(subject: string, keyName: string, items: number): void {
    this.#cryptoTokens.take(subject, items);
    this.#cryptoKeys.take(keyName, items);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeDestruction(subject: string): void {
    this.#destructions.take(subject);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeStream(subject: string): void {
    this.#streams.take(subject);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeAdvance(subject: string): void {
    this.#advances.take(subject);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeRenewal(subject: string): void {
    this.#renewals.take(subject);
  }

  /** @param root of the token. @throws AppError `rate_limited`. */
  takeIssue(subject: string): void {
    this.#issues.take(subject);
  }
}
