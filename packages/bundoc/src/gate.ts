import { AppError } from '@bundoc/shared/errors';

/** How long a task waits for its turn. */
const WAIT_FOR_TURN_MS = 4_500;

/** Runs a bounded number of tasks at a time, in the order in which they came. */
export class Gate {
  readonly #max: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** @throws AppError `overloaded` when its turn did not come in time, and what the task throws. */
  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#max) await this.#turn();
    else this.#running++;
    try {
      return await task();
    } finally {
      // The task that ends hands its place over, so the count stays.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }

  #turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(new AppError('overloaded'));
      }, WAIT_FOR_TURN_MS);
      this.#waiting.push(enter);
    });
  }
}
