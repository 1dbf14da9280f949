import { totalmem } from 'node:os';
import { getHeapStatistics } from 'node:v8';

/** Bytes of memory that this process may have: what its group of processes may have, or the machine has. */
export function memoryLimit(): number {
  // Of a group without a limit it is 0, or more than any machine has.
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/**
 * A quarter of the memory, and no more than half of what V8 has for objects: a full heap ends the process.
 */
export function defaultOpenBytes(): number {
  return Math.floor(Math.min(memoryLimit() / 4, getHeapStatistics().heap_size_limit / 2));
}
