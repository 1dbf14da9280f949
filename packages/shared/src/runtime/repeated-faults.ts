/** Interval at which the log shows the repetitions of a fault, milliseconds. */
export const REPEATED_EVERY_MS = 60_000;
/** Tracked faults. Beyond it the oldest is forgotten. */
export const FAULTS_MAX = 1_024;

interface Fault {
  /** Logs how often the fault was repeated. */
  readonly report: (count: number) => void;
  /** Repetitions since the last line. */
  count: number;
  /** Ends the minute of the fault. */
  timer: NodeJS.Timeout;
}

/**
 * Logs a fault once, and then, while it is repeated, its count once a minute. Each fault has its own minute,
 * which begins with its first line.
 */
export class RepeatedFaults {
  readonly #faults = new Map<string, Fault>();

  /** @returns true for a fault that was not logged in the last minute: the caller logs it. */
  take(key: string, report: (count: number) => void): boolean {
    const known = this.#faults.get(key);
    if (known !== undefined) {
      known.count++;
      return false;
    }
    if (this.#faults.size >= FAULTS_MAX) this.#forgetFirst();
    this.#faults.set(key, { report, count: 0, timer: this.#minuteOf(key) });
    return true;
  }

  /** Writes all counts now. */
  flush(): void {
    for (const fault of this.#faults.values()) write(fault);
  }

  #minuteOf(key: string): NodeJS.Timeout {
    return setTimeout(() => this.#reportOrForget(key), REPEATED_EVERY_MS).unref();
  }

  /** Writes the count of a fault, or forgets a fault that was not repeated for a minute. */
  #reportOrForget(key: string): void {
    const fault = this.#faults.get(key);
    if (fault === undefined) return;
    if (fault.count === 0) {
      this.#faults.delete(key);
      return;
    }
    fault.timer = this.#minuteOf(key);
    write(fault);
  }

  #forgetFirst(): void {
    const [first] = this.#faults;
    if (first === undefined) return;
    const [key, fault] = first;
    clearTimeout(fault.timer);
    this.#faults.delete(key);
    write(fault);
  }
}

function write(fault: Fault): void {
  const { count, report } = fault;
  fault.count = 0;
  if (count > 0) report(count);
}
