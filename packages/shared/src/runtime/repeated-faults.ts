/** Interval at which the log shows the repetitions of a fault, milliseconds. */
export const REPEATED_EVERY_MS = 60_000;
/** Tracked faults. Beyond it the oldest is forgotten. */
export const FAULTS_MAX = 1_024;

interface Fault {
  /** Logs how often the fault was repeated. */
  readonly report: (count: number) => void;
  /** Repetitions since the last line. */
  count: number;
}

/** Logs a fault once, and then, while it is repeated, its count once a minute. */
export class RepeatedFaults {
  readonly #faults = new Map<string, Fault>();
  #timer: NodeJS.Timeout | undefined;

  /** @returns true for a fault that was not logged in the last minute: the caller logs it. */
  take(key: string, report: (count: number) => void): boolean {
    const known = this.#faults.get(key);
    if (known !== undefined) {
      known.count++;
      return false;
    }
    if (this.#faults.size >= FAULTS_MAX) this.#forgetFirst();
    this.#faults.set(key, { report, count: 0 });
    this.#timer ??= setTimeout(() => this.#report(), REPEATED_EVERY_MS).unref();
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

  /** Writes the counts, and forgets faults that were not repeated for a minute. */
  #report(): void {
    for (const [key, { count }] of this.#faults) if (count === 0) this.#faults.delete(key);
    this.flush();
    this.#timer = undefined;
    if (this.#faults.size > 0) this.#timer = setTimeout(() => this.#report(), REPEATED_EVERY_MS).unref();
  }

  #forgetFirst(): void {
    const [first] = this.#faults;
    if (first === undefined) return;
    const [key, { count, report }] = first;
    this.#faults.delete(key);
    if (count > 0) report(count);
  }
}
