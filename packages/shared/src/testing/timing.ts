/**
 * How long a test of behaviour waits before it calls something failed, milliseconds: a disk that other tests
 * keep busy may stall for seconds. Tests of faults pass deadlines of their own.
 */
export const PATIENT_MS = 40_000;

/**
 * Work that goes on beside a test: should it fail, that is thrown where it is awaited, and is not an error of
 * the whole run before.
 */
export function startInBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

/**
 * How much work something is, milliseconds of this process's CPU: unlike the time on a clock, the same on a
 * machine that is busy with others.
 */
export function cpuMsOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}
