import type { WorkKind } from '../work/scheduler.ts';
import { Scheduler, SLICE_US, type Work } from '../work/scheduler.ts';

/** Work each step of which takes a whole slice, so that the turns count its steps. */
export class SlowSteps {
  #us = 0;
  #held = 0;
  /** Bytes of memory that were held at most. */
  heldMax = 0;
  readonly scheduler = new Scheduler({
    processorUs: () => this.#us,
    nowMs: () => {
      this.#us += SLICE_US;
      return this.#us / 1_000;
    },
    memory: {
      reserve: (_key, bytes) => {
        this.#held += bytes;
        this.heldMax = Math.max(this.heldMax, this.#held);
      },
      release: (_key, bytes) => {
        this.#held -= bytes;
      },
    },
  });

  /** Bytes of memory that are held. */
  get held(): number {
    return this.#held;
  }

  /** Turns of the event loop that were waited for. */
  get turns(): number {
    return this.scheduler.slices;
  }

  work(kind: WorkKind, signal?: AbortSignal): Work {
    return this.scheduler.work({ subject: 's', project: 'p' }, kind, signal);
  }
}
