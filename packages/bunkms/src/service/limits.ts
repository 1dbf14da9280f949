import type { Clock } from '@bundoc/shared/clock';
import { RateLimit } from '@bundoc/shared/rate-limit';

/** How often things may be done; 0 is no limit. */
export interface LimitRates {
  /** Exports a second of one token and all that were renewed from the same one. */
  readonly exportsPerToken: number;
  /** Exports a second of one key, whoever asks. */
  readonly exportsPerKey: number;
  /** Items a second that are encrypted, decrypted or rewrapped for one token and all that were renewed from the same one. */
  readonly cryptoPerToken: number;
  /** The same under one key, whoever asks. */
  readonly cryptoPerKey: number;
  /** Destructions of keys and versions a second, and deletions that are scheduled, of one token and all that were renewed from the same one. */
  readonly destructionsPerToken: number;
  /** Renewals a minute of one token and all that were renewed from the same one. */
  readonly renewalsPerMinute: number;
}

/** After a pause, this many seconds' worth may come at once: a node that starts cold fetches all its keys. */
const BURST_S = 5;
/** The same for destructions. */
const DESTRUCTION_BURST_S = 10;
/** Streams of events that one token's family may open: each is on record, and may begin with all revoked tokens. */
const STREAMS = { perSecond: 1, burst: 60 };
/** Advances of storages by one token's family: each node advances as it starts, again when another was faster, and each hour. */
const ADVANCES = { perSecond: 10, burst: 1_000 };

/**
 * The limits of an unsealed service. Each is asked once the caller is authorised and before anything is looked up, so
 * that a refusal says nothing of what exists.
 */
export class Limits {
  readonly #tokens: RateLimit;
  readonly #keys: RateLimit;
  readonly #cryptoTokens: RateLimit;
  readonly #cryptoKeys: RateLimit;
  readonly #renewals: RateLimit;
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

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeExport(family: string, keyName: string): void {
    this.#tokens.take(family);
    this.#keys.take(keyName);
  }

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeCrypto(family: string, keyName: string, items: number): void {
    this.#cryptoTokens.take(family, items);
    this.#cryptoKeys.take(keyName, items);
  }

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeDestruction(family: string): void {
    this.#destructions.take(family);
  }

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeStream(family: string): void {
    this.#streams.take(family);
  }

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeAdvance(family: string): void {
    this.#advances.take(family);
  }

  /** @param family of the token. @throws AppError `rate_limited`. */
  takeRenewal(family: string): void {
    this.#renewals.take(family);
  }
}
