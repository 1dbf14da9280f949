import type { KekDeps } from './kek-rotation.ts';
import type { KeyRewrap } from './rewrap-keys.ts';

export interface KekUpkeepDeps extends KekDeps {
  readonly rewrap: KeyRewrap;
  /** Id of this service among all that use the store. */
  readonly service: string;
}

/** How long a silent service counts as up, milliseconds. */
const PRESENT_MS = 15_000;
/** Shortest interval between announcements, milliseconds. */
const ANNOUNCE_AGAIN_MS = 4_000;

/**
 * Periodic work on KEKs, every few seconds. The service announces that it is up and which KEKs it holds,
 * reloads a changed ring, follows rotations by other processes, and continues unfinished rewrapping.
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
   * Reloads a changed ring and announces the KEKs of this service. It runs at the start before anything is
   * served, and before a rotation. @throws AppError of the store, `sealed`.
   */
  async poll(): Promise<void> {
    await this.#deps.keks.reload();
    await this.#announce();
  }

  /** Concurrent calls share one run. Never rejects: failures are logged and retried. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /**
   * Starts the rewrapping after a rotation, without waiting for it: this service must keep announcing itself.
   */
  rewrap(): void {
    void this.#deps.rewrap.run();
  }

  /** Stops running work after its present step, and announces that this service is down. */
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
      await this.poll();
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
