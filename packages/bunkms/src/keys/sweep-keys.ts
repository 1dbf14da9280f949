import { hasCode } from '@bundoc/shared/contract/app-error';
import { earlierMs, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { SYSTEM } from '../records/caller.ts';
import type { KeyRecord } from '../records/key-record.ts';
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
 * done, and the next sweep continues. Rotations come last, because outside keys of customers may delay them.
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
      await this.#sweep(until, 'pending_deletion', async ({ name }) => {
        if (await purgeKey(this.#deps, name, until, SYSTEM))
          logger.info({ keyName: name }, 'a key was destroyed: its deletion was due');
      });
      try {
        // Always scrub: a destruction by a call or in another process may have crashed before it, or been
        // blocked.
        await store.scrub();
      } finally {
        await this.#rotate(until);
      }
    } catch (error) {
      logger.warn({ err: error }, 'failed to sweep due keys; trying again');
    }
  }

  /** An outside key that does not answer is asked for one key: others under it would take as long. */
  async #rotate(until: string): Promise<void> {
    const away = new Set<string>();
    await this.#sweep(until, 'enabled', async ({ name, outside }) => {
      if (outside !== null && away.has(outside.key)) return;
      try {
        if (await rotateDueKey(this.#deps, name, until, SYSTEM))
          this.#deps.logger.info({ keyName: name }, 'a key was rotated by its policy');
      } catch (error) {
        if (hasCode(error, 'outside_key_unavailable') && error.outsideKey !== undefined)
          away.add(error.outsideKey);
        throw error;
      }
    });
  }

  /** Does what is due of all keys in that state. The failure of one is logged. */
  async #sweep(
    until: string,
    state: KeyRecord['state'],
    act: (record: KeyRecord) => Promise<void>,
  ): Promise<void> {
    const { store, logger } = this.#deps;
    const read = (after?: string) => store.listDueKeys(until, { after, limit: PAGE });
    for await (const stored of allItems(read, ({ name }) => name)) {
      const { name } = stored;
      try {
        const record = authenticate(this.#deps, name, stored)?.record;
        if (record?.state === state) await act(record);
      } catch (error) {
        logger.error({ err: error, keyName: name }, 'failed to sweep a due key');
      }
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
