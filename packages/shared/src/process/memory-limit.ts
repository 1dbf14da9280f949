import { totalmem } from 'node:os';

/** Bytes of memory that this process may use: the limit of its cgroup, or the memory of the machine. */
export function memoryLimit(): number {
  // Without a limit it is 0, or more than any machine has.
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}
