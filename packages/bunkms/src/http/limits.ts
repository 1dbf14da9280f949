import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { RateLimit, takeFromAll } from '@bundoc/shared/runtime/rate-limit';

/** Maximum rates; 0 means no limit. */
export interface LimitRates {
  /**
   * Exports per second of one subject: a token, its renewals and the tokens that it issued, except those that
   * an operator issues for tenants.
   */
  readonly exportsPerToken: number;
  /** Exports per second of one key, for all callers. */
  readonly exportsPerKey: number;
  /** Items per second that are encrypted, decrypted or rewrapped for one subject (see above). */
  readonly cryptoPerToken: number;
  /** The same under one key, for all callers. */
  readonly cryptoPerKey: number;
  /**
   * Destructions of keys and versions per second, scheduled deletions and intents to shred, of one subject
   * (see above). The subject of an intent is the client for which the storage shreds.
   */
  readonly destructionsPerToken: number;
  /** Renewals per minute of one subject (see above). */
  readonly renewalsPerMinute: number;
  /** Tokens per second that one subject issues (see above). */
  readonly issuesPerToken: number;
  /**
   * Reads per second of keys, leases, tokens and the audit chain by one subject (see above). A page counts
   * once for each {@link ITEMS_OF_READ} items that it may have.
   */
  readonly readsPerToken: number;
  /** Keys per second that one subject creates (see above). */
  readonly creationsPerToken: number;
}

/** Items of a page that count as one read. */
const ITEMS_OF_READ = 50;

/** Burst after a pause, in seconds of the rate: a node that starts cold fetches all its keys. */
const BURST_S = 5;
/** The same for destructions. */
const DESTRUCTION_BURST_S = 10;
/**
 * How many times the rate of one subject all clients of a storage may use together. It bounds a stolen
 * service token, which can name any client.
 */
const CLIENTS_OF_STORAGE = 4;
/**
 * Rate at which one subject may open event streams: each is recorded, and may begin with all revoked tokens.
 */
const STREAMS = { perSecond: 1, burst: 60 };
/**
 * Rate of storage advances by one subject: each node advances at its start, again when another was faster,
 * and every hour.
 */
const ADVANCES = { perSecond: 10, burst: 1_000 };

/**
 * The rate limits of an unsealed service. Each is checked after authorization and before anything is looked
 * up, so that a refusal does not reveal what exists. A refused request counts in no limit: a busy key costs
 * its callers nothing at other keys, and a busy caller costs a key nothing.
 */
export class Limits {
  readonly #tokens: RateLimit;
  readonly #keys: RateLimit;
  readonly #cryptoTokens: RateLimit;
  readonly #cryptoKeys: RateLimit;
  readonly #renewals: RateLimit;
  readonly #issues: RateLimit;
  readonly #reads: RateLimit;
  readonly #creations: RateLimit;
  readonly #destructions: RateLimit;
  /** The destructions for all clients of a storage, by its service token. */
  readonly #shreds: RateLimit;
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
    this.#reads = perSecond(rates.readsPerToken);
    this.#creations = perSecond(rates.creationsPerToken);
    const { renewalsPerMinute } = rates;
    this.#renewals = new RateLimit({
      clock,
      perSecond: renewalsPerMinute / 60,
      burst: Math.max(1, renewalsPerMinute),
    });
    const { destructionsPerToken } = rates;
    const destructions = (perSecond: number) =>
      new RateLimit({ clock, perSecond, burst: Math.max(1, perSecond * DESTRUCTION_BURST_S) });
    this.#destructions = destructions(destructionsPerToken);
    this.#shreds = destructions(destructionsPerToken * CLIENTS_OF_STORAGE);
    this.#streams = new RateLimit({ clock, ...STREAMS });
    this.#advances = new RateLimit({ clock, ...ADVANCES });
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeExport(subject: string, keyName: string): void {
    const limits = [[this.#tokens, subject] as const, [this.#keys, keyName] as const];
    takeFromAll(limits, 1);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeCrypto(subject: string, keyName: string, items: number): void {
    const limits = [[this.#cryptoTokens, subject] as const, [this.#cryptoKeys, keyName] as const];
    takeFromAll(limits, items);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeDestruction(subject: string): void {
    this.#destructions.take(subject);
  }

  /**
   * Counts the intent to shred a key, before it is recorded: a deletion that has begun is never refused.
   *
   * @param subject the root of the storage's token. @param client who asks the storage for the deletion.
   * @throws AppError `rate_limited` when the client's share is in use, `overloaded` when that of all clients
   *   of the storage is.
   */
  takeShred(subject: string, client: string): void {
    const one = `${subject} ${client}`;
    const waitMs = this.#shreds.waitMs(subject);
    if (waitMs > 0 && this.#destructions.waitMs(one) <= 0)
      throw new AppError('overloaded', {
        detail: 'the storage has no deletions to spare',
        retryAfterS: waitMs / 1_000,
      });
    this.#destructions.take(one);
    this.#shreds.charge(subject, 1);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeStream(subject: string): void {
    this.#streams.take(subject);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeAdvance(subject: string): void {
    this.#advances.take(subject);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeRenewal(subject: string): void {
    this.#renewals.take(subject);
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeIssue(subject: string): void {
    this.#issues.take(subject);
  }

  /**
   * @param subject the root of the token. @param items that the answer may have. @throws AppError
   *   `rate_limited`.
   */
  takeRead(subject: string, items = 1): void {
    this.#reads.take(subject, Math.ceil(items / ITEMS_OF_READ));
  }

  /** @param subject the root of the token. @throws AppError `rate_limited`. */
  takeCreation(subject: string): void {
    this.#creations.take(subject);
  }
}
