import { AppError } from '@bundoc/shared/errors';

/** How long a caller waits for a place. */
const WAIT_FOR_PLACE_MS = 4_500;

/** A bounded number of places. Who finds none has one vacated, or waits. */
export class Places {
  readonly #max: number;
  readonly #vacate: () => boolean;
  readonly #waiting = new Set<() => void>();
  #taken = 0;

  /** @param vacate gives one of the places back by {@link leave}, if any can be spared now, and says whether it did. */
  constructor(max: number, vacate: () => boolean) {
    this.#max = max;
    this.#vacate = vacate;
  }

  get isFull(): boolean {
    return this.#taken >= this.#max;
  }

  /** @throws AppError `overloaded` when there was no place in time. */
  async take(): Promise<void> {
    const signal = AbortSignal.timeout(WAIT_FOR_PLACE_MS);
    while (this.isFull) {
      if (this.#vacate()) continue;
      if (signal.aborted) throw new AppError('overloaded');
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener('abort', wake);
      });
    }
    this.#taken++;
  }

  leave(): void {
    this.#taken--;
    this.announce();
  }

  /** A place was given back, or could be vacated: who waits looks again. */
  announce(): void {
    for (const wake of this.#waiting) wake();
  }
}
