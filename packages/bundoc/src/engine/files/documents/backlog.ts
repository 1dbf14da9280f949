/** Projects without bytes in the backlog may fill it beyond its limit by this fraction. */
const RESERVE = 1 / 4;

/**
 * Bytes of sealed documents that wait to be written to their files. All projects of the process share it,
 * because they share the memory and the thread that writes.
 */
export class Backlog {
  readonly #bytesMax: number;
  readonly #waiting = new Set<() => void>();
  readonly #projectBytes: number;
  #bytes = 0;
  #projects = 0;

  /**
   * @param bytesMax limit above which callers that add to it should wait.
   * @param projectBytes added for each project in it: a file in another folder takes longer.
   */
  constructor(bytesMax: number, projectBytes = 0) {
    this.#bytesMax = bytesMax;
    this.#projectBytes = projectBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get isFull(): boolean {
    return this.#weight > this.#bytesMax;
  }

  /** Whether projects without bytes in the backlog should wait, too. */
  get isReserveFull(): boolean {
    return this.#weight > this.#bytesMax * (1 + RESERVE);
  }

  get #weight(): number {
    return this.#bytes + this.#projects * this.#projectBytes;
  }

  /** Called when a project gets its first bytes, or has lost its last. */
  countProject(change: 1 | -1): void {
    this.#projects += change;
  }

  /** Adds to the waiting bytes; a negative number subtracts. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.isFull || this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Calls `wake` once, when there is capacity again. */
  whenCapacity(wake: () => void): void {
    this.#waiting.add(wake);
  }
}
