import { SYSTEM } from '../records/caller.ts';
import type { NamedKey } from '../records/key-record.ts';
import { purgeKey } from './destroy-key.ts';
import { rotateDueKey } from './rotate-key.ts';
import { authenticate, type KeyDeps } from './stored-key.ts';

const PAGE = 100;

/**
 * How far the wall clock may run ahead of the monotonic one before that is worth a line in the log,
 * milliseconds. Sleep of the machine looks the same.
 */
const JUMP_MS = 60_000;

/**
 * What the service does to keys by itself: it destroys those whose deletion is due, and rotates those whose
 * policy says so. Every running process may try; one succeeds. A crash at any point leaves the key as it was
 * or done, and the next sweep goes on.
 *
 * A destroyed key cannot be brought back, so the time is taken from whichever clock says less: a wall clock
 * that is set forward destroys nothing before its time, at least until the process is started again; one that
 * is set back only delays.
 */
export class KeySweep {
  readonly #deps: KeyDeps;
  readonly #startedMs: number;
  readonly #startedMonotonicMs: number;
  #hasWarned = false;
  #running: Promise<void> | undefined;

  constructor(deps: KeyDeps) {
    this.#deps = deps;
    this.#startedMs = deps.clock.now();
    this.#startedMonotonicMs = deps.clock.monotonic();
  }

  /**
   * Looks once through what is due. A call during another joins that one. Never throws: what fails is in the
   * log, and tried again.
   */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Resolves when no sweep is under way. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    const { store, logger } = this.#deps;
    try {
      const until = new Date(this.#now()).toISOString();
      for (let after: string | undefined, more = true; more; ) {
        const page = await store.listDueKeys(until, { after, limit: PAGE });
        for (const key of page.items) await this.#sweep(key, until);
        after = page.items.at(-1)?.name;
        more = page.more;
      }
      // Always: anyone who destroyed a key, by a call or in another process, may not have come to this, or
      // was in somebody's way.
      await store.scrub();
    } catch (error) {
      logger.warn({ err: error }, 'failed to sweep due keys; trying again');
    }
  }

  async #sweep(stored: NamedKey, until: string): Promise<void> {
    const { logger } = this.#deps;
    const { name } = stored;
    try {
      const state = authenticate(this.#deps, name, stored)?.record.state;
      if (state === 'enabled' && (await rotateDueKey(this.#deps, name, until, SYSTEM)))
        logger.info({ keyName: name }, 'a key was rotated by its policy');
      if (state === 'pending_deletion' && (await purgeKey(this.#deps, name, until, SYSTEM)))
        logger.info({ keyName: name }, 'a key was destroyed: its deletion was due');
    } catch (error) {
      logger.error({ err: error, keyName: name }, 'failed to sweep a due key');
    }
  }

  #now(): number {
    const { clock, logger } = this.#deps;
    const wallMs = clock.now();
    const elapsedMs = this.#startedMs + (clock.monotonic() - this.#startedMonotonicMs);
    if (wallMs - elapsedMs > JUMP_MS && !this.#hasWarned) {
      this.#hasWarned = true;
      logger.warn(
        { aheadMs: wallMs - elapsedMs },
        'the clock was set forward, or the machine slept: due keys wait until that time has passed, or until a restart',
      );
    }
    return Math.min(wallMs, elapsedMs);
  }
}
