/**
 * How long a test waits before it considers something failed, milliseconds. It is long, because a disk that
 * other tests keep busy may stall for seconds. Tests of faults have shorter deadlines.
 */
export const PATIENT_MS = 40_000;

/**
 * Lets work run in the background of a test. A failure is thrown where the test awaits it, and not earlier as
 * an unhandled rejection.
 */
export function startInBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

/**
 * The CPU time of this process for some work, milliseconds. Unlike elapsed time, it does not depend on the
 * load of the machine.
 */
export function cpuMsOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

/** Resolves in the next turn of the event loop, after everything that is due in this one. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The URL of a PostgreSQL that may be slow; not for tests of its failure. */
export function patientUrl(url: string): string {
  const patient = new URL(url);
  patient.searchParams.set('timeout_ms', String(PATIENT_MS));
  return patient.href;
}
