/** Beyond its bound, the backlog takes this part more from projects that have nothing in it. */
const RESERVE = 1 / 4;

/**
 * Bytes of sealed documents that wait for their files, of all projects of the process together, since there
 * is one memory and one thread that writes them.
 */
export class Backlog {
  readonly #bytesMax: number;
  readonly #waiting = new Set<() => void>();
  #bytes = 0;

  /** @param bytesMax above which callers that add to it should wait. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get isFull(): boolean {
    return this.#bytes > this.#bytesMax;
  }

  /** Whether projects that have nothing in the backlog should wait, too. */
  get isReserveFull(): boolean {
    return this.#bytes > this.#bytesMax * (1 + RESERVE);
  }

  /** Adds to the bytes that wait; a negative number takes away. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.isFull || this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Calls `wake` once, when there is room again. */
  whenCapacity(wake: () => void): void {
    this.#waiting.add(wake);
  }
}
