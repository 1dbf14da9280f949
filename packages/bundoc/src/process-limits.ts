import { getHeapStatistics } from 'node:v8';
import { memoryLimit } from '@bundoc/shared/runtime/memory-limit';

/** A quarter of the memory, and at most half of V8's heap limit: a full heap ends the process. */
export function defaultOpenBytes(): number {
  return Math.floor(Math.min(memoryLimit() / 4, getHeapStatistics().heap_size_limit / 2));
}
