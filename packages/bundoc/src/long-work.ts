import { setImmediate } from 'node:timers/promises';

/** How long work may keep everybody else waiting before it lets them have their turn, milliseconds. */
const TURN_MS = 10;

/** Work of many parts, each of which may take long: others are served in between. */
export class LongWork {
  #turnBeganMs = performance.now();

  /** To be awaited between the parts. Costs next to nothing while the turn is short. */
  async pause(): Promise<void> {
    if (performance.now() - this.#turnBeganMs < TURN_MS) return;
    await setImmediate();
    this.#turnBeganMs = performance.now();
  }
}
