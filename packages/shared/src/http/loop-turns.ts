import { AsyncLocalStorage } from 'node:async_hooks';

/** Maximum of requests that begin at once in a turn of the event loop. */
export const AT_ONCE = 64;
/** A turn with fewer requests has no callback at its end, which would cost more. The next one counts on. */
const COUNTED_ON = 32;
/** For how long waiting requests begin at the end of a turn, milliseconds. */
export const WAITING_MS = 4;

/**
 * Bounds how many requests begin in one turn of the event loop. Others wait for the end of this turn or a
 * later one. There, names take turns, so no client waits for all requests that another has sent before.
 *
 * Requests that waited begin in the asynchronous context in which the instance was created, not in that of
 * another request.
 */
export class LoopTurns {
  readonly #waiting = new Map<string, (() => void)[]>();
  readonly #outside = AsyncLocalStorage.snapshot();
  /** Requests that have begun at once since the last callback at the end of a turn. */
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

  /** Begins a request at once if it may begin, otherwise in a turn of its name. */
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
    // The name goes behind all others.
    this.#waiting.delete(name);
    if (ofName.length > 0) this.#waiting.set(name, ofName);
    // This runs after all microtasks of the request and the ticks that they schedule. So the time of a
    // request includes everything that it causes at once.
    queueMicrotask(() => process.nextTick(() => this.#beginNext()));
    begin?.();
  }
}
