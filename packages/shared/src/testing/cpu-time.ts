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
