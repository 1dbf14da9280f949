import type { KekDeps } from './kek-rotation.ts';
import type { KeyRewrap } from './rewrap-keys.ts';

export interface KekUpkeepDeps extends KekDeps {
  readonly rewrap: KeyRewrap;
  /** Of this service among all that use the store. */
  readonly service: string;
}

/** How long a service that says nothing any more counts as up, milliseconds. */
const PRESENT_MS = 15_000;
/** How often it says so, at most, milliseconds. */
const ANNOUNCE_AGAIN_MS = 4_000;

/**
 * What a service does about KEKs by itself, every few seconds: it says that it is up and which KEKs it holds,
 * reads a ring that has changed, follows anyone who has rotated, and continues with what is left to rewrap.
 */
export class KekUpkeep {
  readonly #deps: KekUpkeepDeps;
  #running: Promise<void> | undefined;
  #isStopped = false;
  #announcedAtMs = Number.NEGATIVE_INFINITY;
  #announcedRing = '';

  constructor(deps: KekUpkeepDeps) {
    this.#deps = deps;
  }

  /**
   * Reads a ring that has changed, and says what this service holds: at the start before anything is served,
   * and before a rotation. @throws AppError of the store, `sealed`.
   */
  async look(): Promise<void> {
    await this.#deps.keks.reload();
    await this.#announce();
  }

  /** A call during another joins that one. Never rejects: what fails is in the log, and tried again. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /**
   * Begins to rewrap what a rotation left to do. Not waited for: this service has to go on saying that it
   * is up.
   */
  rewrap(): void {
    void this.#deps.rewrap.run();
  }

  /** Ends what is under way after its present step, and says that this service is not up any more. */
  async stop(): Promise<void> {
    const { rewrap, store, service, logger } = this.#deps;
    this.#isStopped = true;
    await rewrap.stop();
    await this.#running;
    await store.withdraw(service).catch((error: unknown) => {
      logger.warn(
        { err: error },
        'failed to record that this service is down: it counts as up for some seconds',
      );
    });
  }

  async #run(): Promise<void> {
    const { keks, logger } = this.#deps;
    if (this.#isStopped) return;
    try {
      await this.look();
      await keks.refresh();
    } catch (error) {
      logger.warn({ err: error }, 'failed to read the KEKs; trying again');
      return;
    }
    this.rewrap();
  }

  async #announce(): Promise<void> {
    const { store, service, vault, clock } = this.#deps;
    const { kekIds } = vault;
    const ring = kekIds.join();
    const isFresh = clock.monotonic() - this.#announcedAtMs < ANNOUNCE_AGAIN_MS;
    if (isFresh && ring === this.#announcedRing) return;
    const nowMs = clock.now();
    const nowMonotonicMs = clock.monotonic();
    await store.announce({ service, kekIds, now: isoOf(nowMs), until: isoOf(nowMs + PRESENT_MS) });
    this.#announcedAtMs = nowMonotonicMs;
    this.#announcedRing = ring;
  }
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
