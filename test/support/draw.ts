import { randomOf } from './storage-operator.ts';

/** Seeded random choices. */
export class Draw {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  chance(share: number): boolean {
    return this.#random() < share;
  }

  /** A whole number from 0. */
  below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  oneOf<T>(all: readonly T[]): T {
    return all[this.below(all.length)] as T;
  }

  /** Undefined when there is none. */
  maybeOf<T>(all: readonly T[]): T | undefined {
    return all[this.below(all.length)];
  }
}
