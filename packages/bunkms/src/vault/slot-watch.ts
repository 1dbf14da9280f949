import { formatError } from '@bundoc/shared/logs/error-line';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, every } from '@bundoc/shared/runtime/clock';
import type { KekProvider } from './kek-provider.ts';
import { SLOT_STATES, type SlotState } from './open-ring.ts';

/** How often the slots are asked, and asked again once all of them have denied, milliseconds. */
export interface SlotTimes {
  readonly everyMs: number;
  readonly againMs: number;
}

const TIMES: SlotTimes = { everyMs: 60_000, againMs: 10_000 };
/** How often in a row all slots must deny before the ring counts as withdrawn. */
const DENIALS = 3;
export interface SlotWatchOptions {
  readonly provider: Pick<KekProvider, 'askSlots'>;
  /** Called once, when the owners of all online slots have withdrawn them. */
  readonly onWithdrawn: (slots: readonly string[]) => void;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly logger: Logger;
  readonly metrics: { readonly sealSlots: { set(labels: { state: string }, value: number): void } };
  readonly times?: SlotTimes | undefined;
}

/**
 * Asks the slots of a sealed ring while the service runs, so that their owners can take the ring back. One
 * slot that works, or may work another time, keeps it.
 */
export class SlotWatch implements AsyncDisposable {
  readonly #options: SlotWatchOptions;
  readonly #times: SlotTimes;
  readonly #timer: Disposable;
  #nextMs = 0;
  #denials = 0;
  #said = new Map<string, SlotState['state']>();
  #running: Promise<void> | undefined;

  constructor(options: SlotWatchOptions) {
    this.#options = options;
    this.#times = options.times ?? TIMES;
    this.#timer = every(this.#times.againMs, () => void this.look());
    void this.look();
  }

  /** Asks the slots when it is time. Runs periodically; tests call it directly. Never throws. */
  look(): Promise<void> {
    // The timer may be a little early.
    if (this.#options.clock.monotonic() + this.#times.againMs / 2 < this.#nextMs)
      return this.#running ?? Promise.resolve();
    this.#running ??= this.#ask()
      // The slots of a file that cannot be read have not answered. What they answered before still counts.
      .catch((error: unknown) =>
        this.#options.logger.warn(
          { cause: formatError(error) },
          'the slots of the ring cannot be asked; trying again',
        ),
      )
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer[Symbol.dispose]();
    await this.#running;
  }

  async #ask(): Promise<void> {
    const { provider, onWithdrawn, clock, logger } = this.#options;
    const begunMs = clock.monotonic();
    const slots = await provider.askSlots();
    this.#tell(slots);
    const online = slots.filter(({ state }) => state !== 'offline');
    const areDenied = online.length > 0 && online.every(({ state }) => state === 'denied');
    this.#denials = areDenied ? this.#denials + 1 : 0;
    this.#nextMs = begunMs + (areDenied ? this.#times.againMs : this.#times.everyMs);
    if (this.#denials === 0) return;
    const names = online.map(({ name }) => name);
    logger.error(
      { slots: names, times: this.#denials },
      `all slots are denied; ${DENIALS} times seal BunKMS`,
    );
    if (this.#denials === DENIALS) onWithdrawn(names);
  }

  /** Logs what has changed since the last time, and counts. */
  #tell(slots: readonly SlotState[]): void {
    const { logger, metrics } = this.#options;
    for (const slot of slots) {
      const { name, state } = slot;
      const before = this.#said.get(name);
      if (before === state) continue;
      if (state !== 'opens' && state !== 'offline') logger.warn({ ...slot }, 'a slot does not open the ring');
      else if (before !== undefined) logger.info({ name, state }, 'a slot has another state');
    }
    this.#said = new Map(slots.map(({ name, state }) => [name, state]));
    for (const state of SLOT_STATES)
      metrics.sealSlots.set({ state }, slots.filter((slot) => slot.state === state).length);
  }
}
