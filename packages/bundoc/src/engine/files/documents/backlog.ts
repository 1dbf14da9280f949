/** Beyond its bound, the backlog takes this part more from projects that have nothing in it. */
const RESERVE = 1 / 4;

/**
 * Bytes of sealed documents that wait for their files, of all projects of the process together, since there
 * is one memory and one thread that writes them.
 */
export class Backlog {
  readonly #bytesMax: number;
  readonly #waiting = new Set<() => void>();
  readonly #projectBytes: number;
  #bytes = 0;
  #projects = 0;

  /**
   * @param bytesMax above which callers that add to it should wait.
   * @param projectBytes that each project in it counts in addition: a file in another folder takes longer.
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

  /** Whether projects that have nothing in the backlog should wait, too. */
  get isReserveFull(): boolean {
    return this.#weight > this.#bytesMax * (1 + RESERVE);
  }

  get #weight(): number {
    return this.#bytes + this.#projects * this.#projectBytes;
  }

  /** A project has something in it now, or has nothing in it any more. */
  countProject(change: 1 | -1): void {
    this.#projects += change;
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
