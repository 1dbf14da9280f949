/** How often the repetitions of a fault are counted in the log, milliseconds. */
export const REPEATED_EVERY_MS = 60_000;
/** Faults that are remembered; beyond it the one that was seen first is forgotten. */
export const FAULTS_MAX = 1_024;

interface Fault {
  /** Writes how often it was repeated. */
  readonly report: (count: number) => void;
  /** Repetitions since the last line. */
  count: number;
}

/** Lets a fault into the log once, and then, while it is repeated, its number once a minute. */
export class RepeatedFaults {
  readonly #faults = new Map<string, Fault>();
  #timer: NodeJS.Timeout | undefined;

  /** @returns true for a fault that was not logged in the last minute: it gets its line. */
  take(key: string, report: (count: number) => void): boolean {
    const known = this.#faults.get(key);
    if (known !== undefined) {
      known.count++;
      return false;
    }
    if (this.#faults.size >= FAULTS_MAX) this.#forgetFirst();
    this.#faults.set(key, { report, count: 0 });
    this.#timer ??= setTimeout(() => this.#look(), REPEATED_EVERY_MS).unref();
    return true;
  }

  /** Writes all counts now. */
  flush(): void {
    for (const fault of this.#faults.values()) {
      const { count, report } = fault;
      fault.count = 0;
      if (count > 0) report(count);
    }
  }

  /** Writes the counts, and forgets what was not repeated for a minute. */
  #look(): void {
    for (const [key, { count }] of this.#faults) if (count === 0) this.#faults.delete(key);
    this.flush();
    this.#timer = undefined;
    if (this.#faults.size > 0) this.#timer = setTimeout(() => this.#look(), REPEATED_EVERY_MS).unref();
  }

  #forgetFirst(): void {
    const [first] = this.#faults;
    if (first === undefined) return;
    const [key, { count, report }] = first;
    this.#faults.delete(key);
    if (count > 0) report(count);
  }
}
