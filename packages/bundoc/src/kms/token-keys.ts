import { createPublicKey } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Jwks } from '@bundoc/shared/contract/tokens';
import type { VerificationKeys } from '@bundoc/shared/http/bearer-auth';
import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/runtime/clock';

export interface TokenKeysOptions {
  readonly fetchJwks: () => Promise<Jwks>;
  readonly clock: Clock;
}

/** Minimum pause between requests for an unknown `kid`, because strangers can invent any number. */
export const REFETCH_AFTER_MS = 10_000;
/** The same without a copy, or after a failed request. */
const RETRY_AFTER_MS = 1_000;

/**
 * The keys that BunKMS signs tokens with. The last copy stays usable while BunKMS is down. An unknown `kid`
 * triggers a refresh.
 */
export class TokenKeys implements VerificationKeys {
  readonly #options: TokenKeysOptions;
  #pems: ReadonlyMap<string, string> | undefined;
  #lastTry: Instant | undefined;
  #lastFailure: unknown;
  #fetching: Promise<void> | undefined;

  constructor(options: TokenKeysOptions) {
    this.#options = options;
  }

  /** @throws AppError `kms_unavailable` when the last copy lacks `kid` and BunKMS is unavailable. */
  async find(kid: string): Promise<string | undefined> {
    const known = this.#pems?.get(kid);
    if (known !== undefined) return known;
    await this.refresh();
    const pem = this.#pems?.get(kid);
    if (pem === undefined && this.#lastFailure !== undefined)
      throw new AppError('kms_unavailable', { cause: this.#lastFailure, retryAfterS: 2 });
    return pem;
  }

  isCurrent(kid: string): boolean {
    return this.#pems?.has(kid) ?? false;
  }

  /** Fetches the keys unless that was just tried. Never rejects; one fetch at a time. */
  async refresh(): Promise<void> {
    const { clock } = this.#options;
    const pauseMs = this.#lastFailure === undefined ? REFETCH_AFTER_MS : RETRY_AFTER_MS;
    if (this.#fetching === undefined && this.#lastTry !== undefined && ageMs(clock, this.#lastTry) < pauseMs)
      return;
    this.#fetching ??= this.#fetch().finally(() => {
      this.#lastTry = instant(clock);
      this.#fetching = undefined;
    });
    await this.#fetching;
  }

  async #fetch(): Promise<void> {
    try {
      const jwks = await this.#options.fetchJwks();
      this.#pems = new Map(jwks.keys.map((jwk) => [jwk.kid, pemOf(jwk)]));
      this.#lastFailure = undefined;
    } catch (error) {
      this.#lastFailure = error;
    }
  }
}

function pemOf(jwk: Jwks['keys'][number]): string {
  return createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }).toString();
}
