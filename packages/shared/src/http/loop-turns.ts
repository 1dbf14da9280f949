import { AsyncLocalStorage } from 'node:async_hooks';

/** Requests that begin as they arrive in a turn of the event loop. */
export const AT_ONCE = 64;
/** Fewer are counted with those of the next turn: a callback at the end of each turn would cost more. */
const COUNTED_ON = 32;
/** How long requests that wait begin at the end of a turn, milliseconds. */
export const WAITING_MS = 4;

/**
 * Bounds the requests that begin in one turn of the event loop. Others wait for the end of the turn, or for
 * the next ones. There, names take turns: one client does not wait for all that another has sent before.
 *
 * Requests that waited begin in the asynchronous context in which the instance was created, and not in that
 * of another request.
 */
export class LoopTurns {
  readonly #waiting = new Map<string, (() => void)[]>();
  readonly #outside = AsyncLocalStorage.snapshot();
  /** Requests that have begun as they arrived, since the last callback at the end of a turn. */
  #begun = 0;
  #untilMs = 0;
  #isEndComing = false;

  /** Whether a request may begin at once. Otherwise call {@link begin}. */
  mayBegin(): boolean {
    if (this.#waiting.size > 0) return false;
    this.#begun++;
    if (this.#begun >= COUNTED_ON) this.#awaitEnd();
    return this.#begun <= AT_ONCE;
  }

  /** Begins a request at once, if it may begin, or else in the turn of its name. */
  begin(name: string, begin: () => void): void {
    if (this.mayBegin()) {
      this.#outside(begin);
      return;
    }
    const ofName = this.#waiting.get(name);
    if (ofName === undefined) this.#waiting.set(name, [begin]);
    else ofName.push(begin);
    this.#awaitEnd();
  }

  #awaitEnd(): void {
    if (this.#isEndComing) return;
    this.#isEndComing = true;
    setImmediate(() => {
      this.#begun = 0;
      this.#untilMs = performance.now() + WAITING_MS;
      this.#outside(() => this.#beginNext());
    });
  }

  #beginNext(): void {
    const [next] = this.#waiting;
    if (next === undefined || performance.now() >= this.#untilMs) {
      this.#isEndComing = false;
      if (next !== undefined) this.#awaitEnd();
      return;
    }
    const [name, ofName] = next;
    const begin = ofName.shift();
    // Behind all other names.
    this.#waiting.delete(name);
    if (ofName.length > 0) this.#waiting.set(name, ofName);
    // Microtasks run until none is left, and then what they have scheduled. So the time of a request includes
    // what it causes at once.
    queueMicrotask(() => process.nextTick(() => this.#beginNext()));
    begin?.();
  }
}
