import { setImmediate } from 'node:timers/promises';
import type { SchedulerDeps } from '../work/scheduler.ts';

/** A clock that moves only when work says so, and an event loop that turns by hand. */
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

  /** All time that was taken. */
  get takenUs(): number {
    return this.#us;
  }

  /** Time that was taken in this turn. */
  get takenInTurn(): number {
    return this.#us - this.#atTurn;
  }

  /** Somebody waits for the next turn. */
  get isTurnComing(): boolean {
    return this.#next !== undefined;
  }

  take(us: number): void {
    this.#us += us;
  }

  /** The next turn, until everything waits again. */
  async turn(): Promise<void> {
    this.#atTurn = this.#us;
    const run = this.#next;
    this.#next = undefined;
    run?.();
    await setImmediate();
  }
}
