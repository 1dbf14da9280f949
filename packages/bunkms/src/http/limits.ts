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
  /** Items per second that are encrypted, decrypted or rewrapped, and data keys, for one subject. */
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

/** What a token may do often, and which has a limit of its own. */
type Action = 'renewal' | 'issue' | 'creation' | 'destruction' | 'stream' | 'advance';

/**
 * The rate limits of an unsealed service. Each is checked after authorization and before anything is looked
 * up, so that a refusal does not reveal what exists. A refused request counts in no limit: a busy key costs
 * its callers nothing at other keys, and a busy caller costs a key nothing.
 *
 * A subject is the root of a token. Each method throws AppError `rate_limited`.
 */
export class Limits {
  readonly #actions: Readonly<Record<Action, RateLimit>>;
  readonly #reads: RateLimit;
  /** By subject, and by key. */
  readonly #exports: readonly [RateLimit, RateLimit];
  /** Exports that ask outside keys, by subject. */
  readonly #outsideExports: RateLimit;
  readonly #crypto: readonly [RateLimit, RateLimit];
  /** The destructions for all clients of a storage, by its service token. */
  readonly #shreds: RateLimit;

  constructor(rates: LimitRates, clock: Clock) {
    const limit = (perSecond: number, burst: number) =>
      new RateLimit({ clock, perSecond, burst: Math.max(1, burst) });
    const perSecond = (rate: number, burstS = BURST_S) => limit(rate, rate * burstS);
    this.#reads = perSecond(rates.readsPerToken);
    this.#exports = [perSecond(rates.exportsPerToken), perSecond(rates.exportsPerKey)];
    this.#outsideExports = perSecond(rates.exportsPerToken);
    this.#crypto = [perSecond(rates.cryptoPerToken), perSecond(rates.cryptoPerKey)];
    this.#shreds = perSecond(rates.destructionsPerToken * CLIENTS_OF_STORAGE, DESTRUCTION_BURST_S);
    this.#actions = {
      renewal: limit(rates.renewalsPerMinute / 60, rates.renewalsPerMinute),
      issue: perSecond(rates.issuesPerToken),
      creation: perSecond(rates.creationsPerToken),
      destruction: perSecond(rates.destructionsPerToken, DESTRUCTION_BURST_S),
      stream: limit(STREAMS.perSecond, STREAMS.burst),
      advance: limit(ADVANCES.perSecond, ADVANCES.burst),
    };
  }

  take(action: Action, subject: string): void {
    this.#actions[action].take(subject);
  }

  /** @param items that the answer may have. */
  takeRead(subject: string, items = 1): void {
    this.#reads.take(subject, Math.ceil(items / ITEMS_OF_READ));
  }

  takeExport(subject: string, keyName: string): void {
    const [bySubject, byKey] = this.#exports;
    takeFromAll([[bySubject, subject] as const, [byKey, keyName] as const], 1);
  }

  /**
   * Counts an export that {@link takeExport} has counted among those that ask outside keys. They have a rate
   * of their own, as high, so that retries while a customer's service is away use up no other exports.
   */
  takeOutsideExport(subject: string, keyName: string): void {
    const [bySubject, byKey] = this.#exports;
    bySubject.charge(subject, -1);
    byKey.charge(keyName, -1);
    takeFromAll([[this.#outsideExports, subject] as const, [byKey, keyName] as const], 1);
  }

  takeCrypto(subject: string, keyName: string, items: number): void {
    const [bySubject, byKey] = this.#crypto;
    takeFromAll([[bySubject, subject] as const, [byKey, keyName] as const], items);
  }

  /**
   * Counts the intent to shred a key, before it is recorded: a deletion that has begun is never refused.
   *
   * @param client who asks the storage for the deletion.
   * @throws AppError `rate_limited` when the client's share is in use, `overloaded` when that of all clients
   *   of the storage is.
   */
  takeShred(subject: string, client: string): void {
    const one = `${subject} ${client}`;
    const { destruction } = this.#actions;
    const waitMs = this.#shreds.waitMs(subject);
    if (waitMs > 0 && destruction.waitMs(one) <= 0)
      throw new AppError('overloaded', {
        detail: 'the storage has no deletions to spare',
        retryAfterS: waitMs / 1_000,
      });
    destruction.take(one);
    this.#shreds.charge(subject, 1);
  }
}
