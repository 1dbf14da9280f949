import { RoundRobin } from '../runtime/round-robin.ts';

/** How long items begin in one phase of a turn of the event loop, milliseconds. */
export const BEGINNING_MS = 4;
/** The same while many connections wait for the process to accept them. */
const CROWDED_BEGINNING_MS = 0.2;
/** From so many accepted in one turn on, others are likely to wait. */
const CROWD = 8;

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
  #accepted = 0;
  #isCrowded = false;

  constructor(ports: LoopTurnsDeps = systemPorts) {
    this.#ports = ports;
  }

  /** Number of items that wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Whether many connections wait to be accepted. */
  get isCrowded(): boolean {
    return this.#isCrowded;
  }

  /** Hears of each accepted connection. While there are many, little else begins. */
  accepted(): void {
    this.#accepted++;
    if (this.#accepted >= CROWD) this.#isCrowded = true;
    this.#awaitEnd();
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
    return nowMs - this.#sinceMs < this.#budgetMs;
  }

  /**
   * Begins an item in its turn, which comes in no call of this class.
   *
   * @param isSecond whether most other items of its name go before it.
   */
  add(name: string, begin: () => void, isSecond = false): void {
    this.#waiting.add(name, begin, isSecond);
    this.#awaitEnd();
  }

  /** Forgets an item that has not begun. */
  remove(name: string, begin: () => void): void {
    this.#waiting.remove(name, begin);
  }

  get #budgetMs(): number {
    return this.#isCrowded ? CROWDED_BEGINNING_MS : BEGINNING_MS;
  }

  #awaitEnd(): void {
    if (this.#isEndComing) return;
    this.#isEndComing = true;
    this.#ports.endOfTurn(() => {
      this.#isCrowded = this.#accepted >= CROWD;
      this.#accepted = 0;
      this.#sinceMs = this.#waiting.size > 0 ? this.#ports.nowMs() : undefined;
      this.#beginNext();
    });
  }

  /** Begins one item after the other. Each includes what it causes, which delays the turn as well. */
  #beginNext(): void {
    const sinceMs = this.#sinceMs;
    const isOver = sinceMs === undefined || this.#ports.nowMs() - sinceMs >= this.#budgetMs;
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
