import type { Position } from './port.ts';

interface Waiter {
  readonly after: Position;
  readonly resolve: (position: Position | undefined) => void;
}

/**
 * Those that wait for a commit behind a position. The engine tells of each; nothing is done for it while
 * nobody waits.
 */
export class CommitNotifier {
  readonly #waiting = new Set<Waiter>();
  #ended = false;

  /** Whether anybody waits. */
  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** @returns the position of the change, or undefined when the signal was aborted or this has ended. */
  wait(after: Position, signal: AbortSignal): Promise<Position | undefined> {
    if (signal.aborted || this.#ended) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const waiter: Waiter = {
        after,
        resolve: (position) => {
          this.#waiting.delete(waiter);
          signal.removeEventListener('abort', abandon);
          resolve(position);
        },
      };
      const abandon = () => waiter.resolve(undefined);
      signal.addEventListener('abort', abandon, { once: true });
      this.#waiting.add(waiter);
    });
  }

  /** Everything up to `position` is committed, and can be read. */
  committed(position: Position): void {
    for (const waiter of this.#waiting) if (waiter.after < position) waiter.resolve(position);
  }

  /** Ends all present and future waits. */
  end(): void {
    this.#ended = true;
    for (const waiter of this.#waiting) waiter.resolve(undefined);
  }
}
