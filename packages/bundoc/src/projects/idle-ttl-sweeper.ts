import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { SweepPlace } from '../collections/expiry-sweep.ts';
import type { DueProject, ExpiryMarks } from '../engine/projects/expiry-marks.ts';
import type { InstanceManager } from './instance-manager.ts';

const PAGES_MAX = 100;
/** Pause before an unfinished sweep continues, or is tried again after a lack of space, milliseconds. */
const CONTINUE_AFTER_MS = 60_000;

export interface IdleTtlSweeperOptions {
  readonly marks: ExpiryMarks;
  readonly instances: Pick<InstanceManager, 'visit'>;
  readonly logger: Logger;
  /** Maximum pages of documents in one sweep. */
  readonly pagesMax?: number;
}

/**
 * Removes expired documents of projects that are not open. It sweeps one project at a time, each for a
 * bounded time, and only if there is space among the open ones. `ProjectUpkeep` sweeps open projects.
 */
export class IdleTtlSweeper implements Disposable {
  readonly #options: IdleTtlSweeperOptions;
  /** The positions of unfinished sweeps. */
  readonly #places = new Map<string, SweepPlace>();
  readonly #stop = new AbortController();
  #isSweeping = false;

  constructor(options: IdleTtlSweeperOptions) {
    this.#options = options;
  }

  /**
   * Sweeps one due project, if there is one. Never rejects. Call it about once a second, which bounds the
   * rate.
   */
  async sweep(): Promise<void> {
    if (this.#isSweeping || this.#stop.signal.aborted) return;
    this.#isSweeping = true;
    const { marks, logger } = this.#options;
    let due: DueProject | undefined;
    try {
      due = await marks.take();
      if (due !== undefined) await this.#sweep(due);
    } catch (error) {
      logger.warn({ err: error, project: due?.project }, 'failed to look for expired documents');
    } finally {
      this.#isSweeping = false;
    }
  }

  /** Ends the running sweep after its current page. */
  [Symbol.dispose](): void {
    this.#stop.abort();
  }

  async #sweep(due: DueProject): Promise<void> {
    const { marks, instances, logger, pagesMax = PAGES_MAX } = this.#options;
    const { project } = due;
    let mayExpire = true;
    let place = this.#places.get(project);
    let removed = 0;
    try {
      const outcome = await instances.visit(project, async (store) => {
        mayExpire = store.mayExpire;
        const swept = await store.expired.sweepAll(place, pagesMax, this.#stop.signal);
        ({ removed, next: place } = swept);
      });
      if (outcome === 'absent') mayExpire = false;
      if (outcome === 'open') place = undefined;
      if (outcome === 'no-room' || place !== undefined) await marks.reschedule(due, CONTINUE_AFTER_MS);
    } catch (error) {
      if (!hasCode(error, 'project_destroyed')) throw error;
      mayExpire = false;
    }
    if (place === undefined || !mayExpire) this.#places.delete(project);
    else this.#places.set(project, place);
    if (!mayExpire) await marks.unmark(due);
    if (removed > 0) logger.debug({ project, removed }, 'expired documents were removed');
  }
}
