import type { Hold } from '@bundoc/shared/admission/pool';
import { Pool } from '@bundoc/shared/admission/pool';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { Scheduler, SLICE_US } from '../work/scheduler.ts';
import type { OwnWork, Work, WorkKind } from '../work/work.ts';

/** Records the maximum of held bytes. */
class Peak extends Pool {
  most = 0;

  override tryTakeMore(key: ShareKey, units: number): Hold | undefined {
    const hold = super.tryTakeMore(key, units);
    this.most = Math.max(this.most, this.held);
    return hold;
  }
}

/** Work whose steps each take a whole slice, so that its turns count its steps. */
export class SlowSteps {
  #us = 0;
  readonly memory = new Peak({ name: 'memory', capacity: 1e12, waitMs: 0, clock: systemClock });
  readonly scheduler = new Scheduler({
    nowMs: () => {
      this.#us += SLICE_US;
      return this.#us / 1_000;
    },
    memory: this.memory,
  });

  /** Number of turns of the event loop that it has waited for. */
  get turns(): number {
    return this.scheduler.slices;
  }

  /** Work of the service itself. */
  readonly own: OwnWork = (kind) => this.scheduler.background('p', kind);

  work(kind: WorkKind, signal?: AbortSignal): Work {
    return this.scheduler.work({ subject: 's', project: 'p' }, kind, signal);
  }
}
