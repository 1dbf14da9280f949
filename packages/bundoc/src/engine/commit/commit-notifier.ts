import type { Position } from '../port/port.ts';

interface Waiter {
  readonly after: Position;
  readonly resolve: (position: Position | undefined) => void;
}

/**
 * Waiters for a commit after a position. The engine reports every commit; without waiters this costs nothing.
 */
export class CommitNotifier {
  readonly #waiting = new Set<Waiter>();
  #ended = false;

  /** Whether there are no waiters. */
  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** @returns the position of the change; undefined when the signal was aborted or the notifier has ended. */
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

  /** Reports that everything up to `position` is committed and readable. */
  committed(position: Position): void {
    for (const waiter of this.#waiting) if (waiter.after < position) waiter.resolve(position);
  }

  /** Ends all present and future waits. */
  end(): void {
    this.#ended = true;
    for (const waiter of this.#waiting) waiter.resolve(undefined);
  }
}
