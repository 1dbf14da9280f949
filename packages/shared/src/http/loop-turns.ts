import { AsyncLocalStorage } from 'node:async_hooks';
import { RoundRobin } from '../runtime/round-robin.ts';

/**
 * Items that begin as they arrive in a turn of the event loop. They are counted, because the time of each
 * would cost more than the rest of this class does.
 */
export const AT_ONCE = 256;
/** Fewer are counted with those of the next turn: a callback at the end of each turn would cost more. */
const COUNTED_ON = 32;
/** How long items that wait begin at the end of a turn, milliseconds. */
export const WAITING_MS = 4;
/** Both while many connections wait for the process to accept them. */
const AT_ONCE_CROWDED = 2;
/** At least so long, or for this part of the time since the last items that waited have begun. */
const WAITING_CROWDED = { ms: 0.2, ofTurn: 1 / 8 };
/** From so many accepted in one turn on, others are likely to wait. */
const CROWD = 12;
/** How long a crowd is served first, and then not, milliseconds. A flood of connections may have no end. */
const CROWDED_MS = 1_000;
const UNCROWDED_MS = 250;

export interface LoopTurnsDeps {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in this turn of the event loop, after its input was read. */
  readonly endOfTurn: (run: () => void) => void;
  /** Calls back once the promises that the present call has settled were handled. */
  readonly afterwards: (run: () => void) => void;
}

const systemPorts: LoopTurnsDeps = {
  nowMs: () => performance.now(),
  endOfTurn: (run) => setImmediate(run),
  // Microtasks run until none is left, and then what they have scheduled.
  afterwards: (run) => queueMicrotask(() => process.nextTick(run)),
};

/**
 * Bounds what begins in one turn of the event loop. In a turn, the event loop accepts some connections and
 * serves all that have input, so a turn that is long for many of them is long for all. What arrives while too
 * much has begun waits for the end of the turn, or for the next ones. Names take turns: one client does not
 * wait for all that another has sent before.
 *
 * Items that waited begin in the asynchronous context in which the instance was created, and not in that of a
 * request.
 *
 * One class, because the time, what waits and the connections of a turn decide together what begins in it.
 */
export class LoopTurns {
  readonly #ports: LoopTurnsDeps;
  readonly #waiting = new RoundRobin<() => void>();
  readonly #outside = AsyncLocalStorage.snapshot();
  /** Items that have begun as they arrived in this turn, and in those before it without a callback. */
  #begun = 0;
  /** When the first of those that waited has begun in this turn, and how long they may begin. */
  #sinceMs = 0;
  #forMs = 0;
  #isEndComing = false;
  #accepted = 0;
  /** Whether many connections were just accepted, so that others are likely to wait. */
  #isCrowded = false;
  /** Since when connections arrive in crowds. */
  #crowdedSinceMs: number | undefined;

  constructor(ports: LoopTurnsDeps = systemPorts) {
    this.#ports = ports;
  }

  /** Number of items that wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Whether many connections wait for the process to accept them. */
  get isCrowded(): boolean {
    return this.#crowdedSinceMs !== undefined;
  }

  /** Hears of each accepted connection. While there are many, little else begins. */
  accepted(): void {
    this.#accepted++;
    this.#awaitEnd();
  }

  /** Whether an item may begin at once. Otherwise call {@link begin}. */
  mayBegin(): boolean {
    if (this.#waiting.size > 0) return false;
    this.#begun++;
    if (this.#begun >= COUNTED_ON) this.#awaitEnd();
    return this.#begun <= (this.#isCrowded ? AT_ONCE_CROWDED : AT_ONCE);
  }

  /**
   * Begins an item at once, if it may begin, or else in its turn.
   *
   * @param isSecond whether most other items of its name go before it.
   */
  begin(name: string, begin: () => void, isSecond = false): void {
    if (this.mayBegin()) {
      this.#outside(begin);
      return;
    }
    this.#waiting.add(name, begin, isSecond);
    this.#awaitEnd();
  }

  /** Forgets an item that has not begun. */
  remove(name: string, begin: () => void): void {
    this.#waiting.remove(name, begin);
  }

  #awaitEnd(): void {
    if (this.#isEndComing) return;
    this.#isEndComing = true;
    this.#ports.endOfTurn(() => this.#endTurn());
  }

  #endTurn(): void {
    this.#begun = 0;
    const lastMs = this.#sinceMs;
    this.#sinceMs = this.#ports.nowMs();
    if (this.#accepted < CROWD) this.#crowdedSinceMs = undefined;
    else this.#crowdedSinceMs ??= this.#sinceMs;
    this.#isCrowded =
      this.#crowdedSinceMs !== undefined &&
      (this.#sinceMs - this.#crowdedSinceMs) % (CROWDED_MS + UNCROWDED_MS) < CROWDED_MS;
    const { ms, ofTurn } = WAITING_CROWDED;
    const crowdedMs = Math.max(ms, (this.#sinceMs - lastMs) * ofTurn);
    this.#forMs = this.#isCrowded ? Math.min(crowdedMs, WAITING_MS) : WAITING_MS;
    this.#accepted = 0;
    this.#outside(() => this.#beginNext());
  }

  /** Begins one item after the other. Each includes what it causes, which delays the turn as well. */
  #beginNext(): void {
    const isOver = this.#waiting.size === 0 || this.#ports.nowMs() >= this.#sinceMs + this.#forMs;
    const begin = isOver ? undefined : this.#waiting.next();
    if (begin === undefined) {
      this.#isEndComing = false;
      // The next turn may be the end of a crowd.
      if (this.#waiting.size > 0 || this.isCrowded) this.#awaitEnd();
      return;
    }
    this.#ports.afterwards(() => this.#beginNext());
    begin();
  }
}
