import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import { foldKekRecords, type KekState, neededKeks } from '../records/kek-state.ts';
import type { KekStore } from '../store/kek.ts';
import type { KekProvider } from './kek-provider.ts';
import { RingSealed } from './open-ring.ts';
import type { Vault } from './vault.ts';

export interface KeksOptions {
  readonly vault: Vault;
  readonly provider: KekProvider;
  /** {@link KekProvider.stamp} from before the vault's ring was loaded. */
  readonly stamp: string;
  readonly store: Pick<KekStore, 'kekRecords' | 'addKek'>;
  readonly chainKey: KeyObject;
  /** The state at unsealing. */
  readonly state: KekState;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly caller: Caller;
}

/**
 * Synchronizes the vault with the two sources of KEK state. The ring determines what this process can open.
 * The audit chain determines the current KEK for all processes.
 */
export class Keks {
  readonly #options: KeksOptions;
  #state: KekState;
  #stamp: string;
  #hasReported = false;
  /** No slot opened the ring of that stamp. Another time one may. */
  #isSealed = false;

  constructor(options: KeksOptions) {
    this.#options = options;
    this.#state = options.state;
    this.#stamp = options.stamp;
  }

  /** The state at the last {@link refresh}. */
  get state(): KekState {
    return this.#state;
  }

  /**
   * Reads the KEK state from the chain and adopts the current KEK. Call it before a retry when the store has
   * refused a key because its KEK is no longer current.
   *
   * @throws AppError `sealed` when KEK records of the chain were changed, or the ring lacks the current KEK
   *   even after a reload. Then the vault does not change. Also errors of the store.
   */
  async refresh(): Promise<KekState> {
    const { store, chainKey, vault, logger } = this.#options;
    const state = foldKekRecords(chainKey, await store.kekRecords());
    if (!('keks' in state)) {
      logger.error(
        { auditSeq: state.seq },
        'an audit record of the KEKs was changed: no more keys are wrapped',
      );
      throw new AppError('sealed');
    }
    // Overlapping calls may end in any order; the newer state wins.
    if (state.seq > this.#state.seq) this.#state = state;
    if (!vault.holds(this.#state.current)) await this.#load();
    if (!vault.holds(this.#state.current)) {
      logger.error(
        { kekId: this.#state.current },
        'the ring lacks the current KEK: no more keys are wrapped',
      );
      throw new AppError('sealed');
    }
    vault.makeCurrent(this.#state.current);
    return this.#state;
  }

  /**
   * Reloads the ring if it has changed, and stages its new KEKs. If the ring is invalid or lacks a needed
   * KEK, the last good ring stays, and the log says so. It also stays while no slot opens the new one, which
   * is tried again at each call.
   *
   * @throws as {@link refresh}.
   */
  async reload(): Promise<void> {
    // The chain determines the needed KEKs: another process may have retired one just before its line was
    // removed.
    if (this.#hasNewRing()) await this.refresh();
    if (this.#hasNewRing()) await this.#load();
    await this.#stage();
  }

  #hasNewRing(): boolean {
    return this.#isSealed || this.#options.provider.stamp() !== this.#stamp;
  }

  async #load(): Promise<void> {
    const { provider, vault, logger } = this.#options;
    const stamp = provider.stamp();
    const isNew = stamp !== this.#stamp;
    this.#stamp = stamp;
    if (isNew) this.#hasReported = false;
    this.#isSealed = false;
    try {
      const ring = await provider.load();
      const missing = vault.missingIn(ring, neededKeks(this.#state));
      if (missing.length > 0) return this.#report({ missing }, 'the new KEK ring lacks KEKs that are needed');
      vault.replaceRing(ring);
      logger.info({ kekIds: vault.kekIds }, 'the KEK ring was reloaded');
    } catch (error) {
      this.#isSealed = error instanceof RingSealed;
      if (error instanceof RingSealed)
        this.#report({ cause: error.message }, 'no slot opens the new KEK ring');
      else this.#report({ err: error }, 'the new KEK ring is invalid');
    }
  }

  /** Logs once for each state of the ring. */
  #report(facts: object, what: string): void {
    if (!this.#hasReported) this.#options.logger.error(facts, `${what}: keeping the last valid ring`);
    this.#hasReported = true;
  }

  async #stage(): Promise<void> {
    const { vault, store, caller } = this.#options;
    const unknown = vault.kekIds.filter((kekId) => !this.#state.keks.has(kekId));
    if (unknown.length === 0) return;
    for (const kekId of unknown) {
      const checkValue = vault.checkValueOf(kekId);
      assert(checkValue !== undefined, 'a KEK of the ring has a check value');
      const detail = { kek_id: kekId, check_value: checkValue };
      await store.addKek({ id: kekId, checkValue }, draftNow(this.#options, caller, 'kek.stage', { detail }));
    }
    await this.refresh();
  }
}
