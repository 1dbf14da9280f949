import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import type { Caller } from '../records/caller.ts';
import { foldKekRecords, type KekState, neededKeks } from '../records/kek-state.ts';
import type { KekStore } from '../store/kek.ts';
import type { KekProvider } from './kek-provider.ts';
import type { Vault } from './vault.ts';

export interface KeksOptions {
  readonly vault: Vault;
  readonly provider: KekProvider;
  /** {@link KekProvider.stamp} from before the vault's ring was loaded. */
  readonly stamp: string;
  readonly store: Pick<KekStore, 'kekRecords' | 'addKek'>;
  readonly chainKey: KeyObject;
  /** As unsealing found it. */
  readonly state: KekState;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly caller: Caller;
}

/**
 * Keeps the vault in step with the two places that decide about KEKs: the ring, which says what this process
 * can open, and the audit chain, which says what it wraps with, whichever process made that so.
 */
export class Keks {
  readonly #options: KeksOptions;
  #state: KekState;
  #stamp: string;
  #hasReported = false;

  constructor(options: KeksOptions) {
    this.#options = options;
    this.#state = options.state;
    this.#stamp = options.stamp;
  }

  /** As the last {@link refresh} found it. */
  get state(): KekState {
    return this.#state;
  }

  /**
   * Reads what the chain says now, and wraps accordingly from then on. A process learns from the store that
   * it wrapped with a KEK that is the current one no more calls this before the next try.
   *
   * @throws AppError `sealed` when the chain's records of the KEKs were changed, or the ring lacks the
   * current KEK, also when it is read again; the vault stays as it was then. And what the store throws.
   */
  async refresh(): Promise<KekState> {
    const { store, chainKey, vault, logger } = this.#options;
    const state = foldKekRecords(chainKey, await store.kekRecords());
    if (!('keks' in state)) {
      logger.error(
        { auditSeq: state.seq },
        'an audit record of the KEKs was changed: nothing more is wrapped',
      );
      throw new AppError('sealed');
    }
    // Two that overlap may end in any order; what is newer stays.
    if (state.seq > this.#state.seq) this.#state = state;
    if (!vault.holds(this.#state.current)) await this.#load();
    if (!vault.holds(this.#state.current)) {
      logger.error({ kekId: this.#state.current }, 'the ring lacks the current KEK: nothing more is wrapped');
      throw new AppError('sealed');
    }
    vault.makeCurrent(this.#state.current);
    return this.#state;
  }

  /**
   * Reads the ring again if it has changed, and makes KEKs that are new in it known as staged. One that is no
   * use, or lacks a KEK that is needed, leaves the last good ring in place, and the log says so.
   *
   * @throws what {@link refresh} throws.
   */
  async reload(): Promise<void> {
    // Which KEKs are needed is for the chain to say: another process may have retired one a moment before its
    // line was removed.
    if (this.#hasNewRing()) await this.refresh();
    if (this.#hasNewRing()) await this.#load();
    await this.#stage();
  }

  #hasNewRing(): boolean {
    return this.#options.provider.stamp() !== this.#stamp;
  }

  async #load(): Promise<void> {
    const { provider, vault, logger } = this.#options;
    const stamp = provider.stamp();
    const isNew = stamp !== this.#stamp;
    this.#stamp = stamp;
    if (isNew) this.#hasReported = false;
    try {
      const ring = await provider.load();
      const missing = vault.missingIn(ring, neededKeks(this.#state));
      if (missing.length > 0) return this.#report({ missing }, 'the new KEK ring lacks KEKs that are needed');
      vault.replaceRing(ring);
      logger.info({ kekIds: vault.kekIds }, 'the KEK ring was reloaded');
    } catch (error) {
      this.#report({ err: error }, 'the new KEK ring is invalid');
    }
  }

  /** Once for each state of the ring. */
  #report(facts: object, what: string): void {
    if (!this.#hasReported) this.#options.logger.error(facts, `${what}: keeping the last valid ring`);
    this.#hasReported = true;
  }

  async #stage(): Promise<void> {
    const { vault, store, clock, caller } = this.#options;
    const unknown = vault.kekIds.filter((kekId) => !this.#state.keks.has(kekId));
    if (unknown.length === 0) return;
    for (const kekId of unknown) {
      const checkValue = vault.checkValueOf(kekId);
      assert(checkValue !== undefined, 'a KEK of the ring has a check value');
      await store.addKek(
        { id: kekId, checkValue },
        {
          ...caller,
          time: new Date(clock.now()).toISOString(),
          severity: 'INFO',
          action: 'kek.stage',
          outcome: 'allowed',
          detail: { kek_id: kekId, check_value: checkValue },
        },
      );
    }
    await this.refresh();
  }
}
