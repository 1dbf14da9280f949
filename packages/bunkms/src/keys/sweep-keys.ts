import { earlierMs, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { SYSTEM } from '../records/caller.ts';
import type { NamedKey } from '../records/key-record.ts';
import { allItems } from '../store/page.ts';
import { purgeKey } from './destroy-key.ts';
import { rotateDueKey } from './rotate-key.ts';
import { authenticate, type KeyDeps } from './stored-key.ts';

const PAGE = 100;

/**
 * How far the wall clock may run ahead of the monotonic one without a log line, milliseconds. A sleep of the
 * machine looks the same.
 */
const JUMP_MS = 60_000;

/**
 * Periodic work on keys: destroys those whose deletion is due, and rotates those that are due by their
 * policy. Every running process may try, and one succeeds. After a crash each key is either unchanged or
 * done, and the next sweep continues.
 *
 * A destroyed key cannot be restored, so the time comes from the slower clock. A wall clock that is set
 * forward destroys nothing early, at least until the process restarts. One that is set back only delays.
 */
export class KeySweep {
  readonly #deps: KeyDeps;
  readonly #started: Instant;
  #hasWarned = false;
  #running: Promise<void> | undefined;

  constructor(deps: KeyDeps) {
    this.#deps = deps;
    this.#started = instant(deps.clock);
  }

  /**
   * Processes all due keys once. Concurrent calls share one run. Never throws: failures are logged and
   * retried.
   */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Resolves when no sweep is running. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    const { store, logger } = this.#deps;
    try {
      const until = new Date(this.#now()).toISOString();
      const read = (after?: string) => store.listDueKeys(until, { after, limit: PAGE });
      for await (const key of allItems(read, ({ name }) => name)) await this.#sweep(key, until);
      // Always scrub: a destruction by a call or in another process may have crashed before it, or been
      // blocked.
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
    const nowMs = earlierMs(clock, this.#started);
    const aheadMs = clock.now() - nowMs;
    if (aheadMs > JUMP_MS && !this.#hasWarned) {
      this.#hasWarned = true;
      logger.warn(
        { aheadMs },
        'the clock was set forward, or the machine slept: due keys wait until that time has passed, or until a restart',
      );
    }
    return nowMs;
  }
}
