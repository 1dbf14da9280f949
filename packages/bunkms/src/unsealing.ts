import { formatError } from '@bundoc/shared/logs/error-line';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, every } from '@bundoc/shared/runtime/clock';
import type { SealedState } from './http/readiness.ts';
import type { Services } from './http/services.ts';
import type { PublicJwk } from './records/installation.ts';
import { neededKeks } from './records/kek-state.ts';
import type { InstallationStore } from './store/installation.ts';
import type { KekStore } from './store/kek.ts';
import type { KekProvider } from './vault/kek-provider.ts';
import { RingSealed } from './vault/open-ring.ts';
import { type Unsealed, unseal } from './vault/unseal.ts';
import { Vault } from './vault/vault.ts';

/** How often a sealed service tries again, milliseconds: a provider that was away may be back. */
const RETRY_MS = 5_000;
/** How often it looks for a new ring file or other entries, milliseconds. */
const LOOK_MS = 1_000;

/** What an unsealed service has. */
export interface Unsealing {
  readonly services: Services;
  readonly publicKey: PublicJwk;
}

export interface UnsealerOptions {
  readonly provider: KekProvider;
  /** A value that changes when the outside keys may have changed. */
  readonly outsideStamp: () => string;
  readonly store: InstallationStore & KekStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: { readonly sealed: { set(value: number): void } };
  readonly trust: { readonly isSealed: boolean };
  /** Composes the services once the installation is open. @param stamp of the ring before it was loaded. */
  readonly compose: (state: Unsealed, vault: Vault, stamp: string) => Promise<Unsealing>;
}

/**
 * Unseals the service: at its start, or later, when a provider of the sealed ring is back, or the operator
 * has corrected the ring or its outside keys. It never seals it again.
 */
export class Unsealer implements AsyncDisposable {
  readonly #options: UnsealerOptions;
  #unsealed: Unsealing | undefined;
  #sealed: SealedState | undefined;
  #stamps = '';
  #timer: Disposable | undefined;
  #running: Promise<void> | undefined;

  constructor(options: UnsealerOptions) {
    this.#options = options;
  }

  /** Undefined while the service is sealed. */
  get unsealed(): Unsealing | undefined {
    return this.#unsealed;
  }

  /** Undefined while it is unsealed. */
  get sealed(): SealedState | undefined {
    return this.#sealed;
  }

  /**
   * The first try. If it fails for a reason that may pass, further ones follow until one succeeds.
   *
   * @throws ConfigError when the ring cannot be read, or is none. Also errors of the store.
   */
  async begin(): Promise<void> {
    await this.#try();
    if (this.#unsealed !== undefined) return;
    this.#timer = every(LOOK_MS, () => this.look());
  }

  /** Tries again when it is time, or a file has changed. Runs periodically; tests call it directly. */
  look(): Promise<void> {
    const isDue = this.#options.clock.now() >= (this.#sealed?.nextTryMs ?? 0);
    if (this.#unsealed !== undefined || (!isDue && this.#stamps === this.#stampNow()))
      return Promise.resolve();
    this.#running ??= this.#try()
      .catch((error: unknown) => this.#seal('it could not be unsealed', formatError(error)))
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.[Symbol.dispose]();
    await this.#running;
  }

  #stampNow(): string {
    const { provider, outsideStamp } = this.#options;
    return `${provider.stamp()} ${outsideStamp()}`;
  }

  async #try(): Promise<void> {
    const { provider, store, clock, logger, metrics, trust, compose } = this.#options;
    this.#stamps = this.#stampNow();
    const stamp = provider.stamp();
    let vault: Vault;
    try {
      vault = new Vault(await provider.load());
    } catch (error) {
      if (error instanceof RingSealed) return this.#seal(error.publicMessage, error.message);
      throw error;
    }
    const state = await unseal(vault, store, clock, 'system');
    if (state.kind === 'sealed')
      return this.#seal(
        'the KEK does not fit the store',
        `the KEK does not fit the store; add the right KEK to the ring: ${state.reason}`,
      );
    tellOfFaults(state, vault, logger);
    this.#unsealed = await compose(state, vault, stamp);
    this.#timer?.[Symbol.dispose]();
    metrics.sealed.set(trust.isSealed ? 1 : 0);
    if (this.#sealed !== undefined) logger.info('unsealed');
    this.#sealed = undefined;
  }

  /** Logs once for each reason. @param cause for the operator: it may name places of the network. */
  #seal(reason: string, cause: string): void {
    const { clock, logger, metrics } = this.#options;
    metrics.sealed.set(1);
    if (reason !== this.#sealed?.reason) logger.error({ cause }, `sealed: ${reason}; trying again by itself`);
    this.#sealed = { reason, nextTryMs: clock.now() + RETRY_MS };
  }
}

function tellOfFaults({ keks }: Unsealed, vault: Vault, logger: Logger): void {
  const missing = neededKeks(keks).filter((kekId) => !vault.holds(kekId));
  if (missing.length > 0)
    logger.warn(
      { missing },
      'the ring lacks KEKs that are not retired: what is wrapped with them does not open',
    );
}
