import { RoundRobin } from '../runtime/round-robin.ts';

/** How long items begin in one phase of a turn of the event loop, milliseconds. */
export const BEGINNING_MS = 4;

export interface LoopTurnsDeps {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in this turn of the event loop, after its input was read. */
  readonly endOfTurn: (run: () => void) => void;
  /** Calls back once what the present call goes on with at once is done: its settled promises. */
  readonly afterwards: (run: () => void) => void;
}

const systemPorts: LoopTurnsDeps = {
  nowMs: () => performance.now(),
  endOfTurn: (run) => setImmediate(run),
  // Microtasks run until none is left, and then what they have scheduled.
  afterwards: (run) => queueMicrotask(() => process.nextTick(run)),
};

/**
 * Bounds what begins in one turn of the event loop. The event loop serves all connections with input before
 * it accepts another, so a turn that is long for many of them is long for all. What arrives while too much
 * has begun waits for the end of the turn, or for the next ones. Names take turns: one client does not wait
 * for all that another has sent before.
 */
export class LoopTurns {
  readonly #ports: LoopTurnsDeps;
  readonly #waiting = new RoundRobin<() => void>();
  /** When the first item of the present phase has begun. */
  #sinceMs: number | undefined;
  #isEndComing = false;

  constructor(ports: LoopTurnsDeps = systemPorts) {
    this.#ports = ports;
  }

  /** Number of items that wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Whether an item may begin at once. Otherwise {@link add} it. */
  mayBegin(): boolean {
    if (this.#waiting.size > 0) return false;
    const nowMs = this.#ports.nowMs();
    if (this.#sinceMs === undefined) {
      this.#sinceMs = nowMs;
      this.#awaitEnd();
      return true;
    }
    return nowMs - this.#sinceMs < BEGINNING_MS;
  }

  /** Begins an item in its turn, which comes in no call of this class. */
  add(name: string, begin: () => void): void {
    this.#waiting.add(name, begin);
    this.#awaitEnd();
  }

  /** Forgets an item that has not begun. */
  remove(name: string, begin: () => void): void {
    this.#waiting.remove(name, begin);
  }

  #awaitEnd(): void {
    if (this.#isEndComing) return;
    this.#isEndComing = true;
    this.#ports.endOfTurn(() => {
      this.#sinceMs = this.#waiting.size > 0 ? this.#ports.nowMs() : undefined;
      this.#beginNext();
    });
  }

  /** Begins one item after the other. Each includes what it causes, which delays the turn as well. */
  #beginNext(): void {
    const sinceMs = this.#sinceMs;
    const isOver = sinceMs === undefined || this.#ports.nowMs() - sinceMs >= BEGINNING_MS;
    const begin = isOver ? undefined : this.#waiting.next();
    if (begin === undefined) {
      this.#sinceMs = undefined;
      this.#isEndComing = false;
      if (this.#waiting.size > 0) this.#awaitEnd();
      return;
    }
    this.#ports.afterwards(() => this.#beginNext());
    begin();
  }
}
