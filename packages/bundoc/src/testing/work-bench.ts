import { setImmediate } from 'node:timers/promises';
import type { SchedulerDeps } from '../work/scheduler.ts';

/** A clock that only work advances, and an event loop whose turns a test begins. */
export class WorkBench {
  #us = 0;
  #atTurn = 0;
  #next: (() => void) | undefined;

  readonly ports: Pick<SchedulerDeps, 'nowMs' | 'nextTurn'> = {
    nowMs: () => this.#us / 1_000,
    nextTurn: (run) => {
      this.#next = run;
    },
  };

  /** All time that work has taken. */
  get takenUs(): number {
    return this.#us;
  }

  /** Time that work has taken in this turn. */
  get takenInTurn(): number {
    return this.#us - this.#atTurn;
  }

  /** Whether work waits for the next turn. */
  get isTurnComing(): boolean {
    return this.#next !== undefined;
  }

  take(us: number): void {
    this.#us += us;
  }

  /** Runs the next turn until all work waits again. */
  async turn(): Promise<void> {
    this.#atTurn = this.#us;
    const run = this.#next;
    this.#next = undefined;
    run?.();
    await setImmediate();
  }
}
