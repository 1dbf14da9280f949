import { setTimeout } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { CarriedFiles } from './carried-files.ts';
import type { CheckpointTurns } from './checkpoint-turns.ts';
import type { Log } from './log/log.ts';
import type { FailedHandles } from './log/log-api.ts';

const FREE_AGAIN_MS = 1_000;

export interface LogFreeingOptions {
  readonly log: Log;
  readonly checkpoints: CheckpointTurns;
  readonly carried: CarriedFiles;
  /** Resolves once the log knows what every catalog covers. */
  readonly scanned: Promise<void>;
  /** Called with the handles of projects whose folders failed while the log was being freed. */
  readonly onStuck: ((failed: FailedHandles) => void) | undefined;
  /** Called when the log could not be freed. */
  readonly onFailed: ((error: unknown) => void) | undefined;
}

/** Frees segments of the log in the background, while the log needs it. */
export class LogFreeing {
  readonly #options: LogFreeingOptions;
  /** Handles of projects whose next commits wait for their checkpoint. */
  readonly #checkpointsWanted = new Set<string>();
  #freeing: Promise<void> | undefined;
  #isWanted = false;
  #isStopped = false;

  constructor(options: LogFreeingOptions) {
    this.#options = options;
  }

  /** Starts nothing more. Resolves once the running work is done. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#options.scanned;
    await this.#freeing;
  }

  /**
   * Frees segments in the background. @param handle that of a project whose commits wait for its checkpoint.
   */
  free(handle: string | undefined): void {
    if (this.#isStopped) return;
    if (handle === undefined) this.#isWanted = true;
    else this.#checkpointsWanted.add(handle);
    this.#freeing ??= this.#freeWhileNeeded().finally(() => {
      this.#freeing = undefined;
      if (this.#checkpointsWanted.size > 0 || this.#isWanted) this.free(undefined);
    });
  }

  /**
   * Frees segments until enough are free: by checkpoints of open projects, by carrying for the rest. Never
   * rejects.
   */
  async #freeWhileNeeded(): Promise<void> {
    const { carried, checkpoints, log, onFailed, onStuck, scanned } = this.#options;
    await scanned;
    while (!this.#isStopped) {
      const wanted = [...this.#checkpointsWanted];
      // On a full disk, the log cannot grow, so it may lack a segment even if little of it is used.
      const isWanted = this.#isWanted;
      this.#checkpointsWanted.clear();
      this.#isWanted = false;
      await checkpoints.ofOpen(wanted);
      if (!isWanted && !log.shouldFree) return;
      const pinning = log.pinning();
      if (pinning.length === 0) return;
      await checkpoints.ofOpen(pinning);
      try {
        const stuck = await log.carryOldest(carried);
        if (stuck.size > 0) onStuck?.(stuck);
      } catch (error) {
        onFailed?.(error);
        log.refuseHeld(
          hasCode(error, 'disk_full')
            ? error
            : new AppError('storage_unavailable', { cause: error, retryAfterS: 1 }),
        );
        await setTimeout(FREE_AGAIN_MS, undefined, { ref: false });
      }
    }
  }
}
