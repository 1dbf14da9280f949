import { totalmem } from 'node:os';

/** Bytes of memory that this process may have: what its group of processes may have, or the machine has. */
export function memoryLimit(): number {
  // Of a group without a limit it is 0, or more than any machine has.
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}
