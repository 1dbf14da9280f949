import { getHeapStatistics } from 'node:v8';
import type { Logger } from '@bundoc/shared/logs/logger';
import { memoryLimit } from '@bundoc/shared/process/memory-limit';

const MIB = 1_048_576;
/**
 * The smallest memory limit in which the defaults leave room for the process itself. Below it, the system may
 * end the process when its shares are full.
 */
export const MEMORY_MIN = 1_024 * MIB;
/** The cache and the open projects get parts of what the memory limit has beyond this. */
const FIRST_BYTES = 256 * MIB;
const CACHE_BYTES_MAX = 256 * MIB;
const SNAPSHOT_BYTES_MAX = 256 * MIB;
const BYTES_MIN = 16 * MIB;

/** Logs a warning when the process may use less than {@link MEMORY_MIN}. */
export function warnOfLittleMemory(logger: Pick<Logger, 'warn'>, limitBytes = memoryLimit()): void {
  if (limitBytes >= MEMORY_MIN) return;
  logger.warn(
    { bytes: limitBytes },
    'the memory limit is below 1 GiB: the system may end this process when its shares are full',
  );
}

/** Sealed bytes in memory: an eighth of what the limit has beyond 256 MiB, up to 256 MiB. */
export function defaultCacheBytes(limitBytes = memoryLimit()): number {
  return Math.floor(Math.min(CACHE_BYTES_MAX, Math.max(BYTES_MIN, (limitBytes - FIRST_BYTES) / 8)));
}

/**
 * Superseded documents that are kept for answers in progress: a sixteenth of what the limit has beyond 256
 * MiB, up to 256 MiB.
 */
export function defaultSnapshotBytes(limitBytes = memoryLimit()): number {
  return Math.floor(Math.min(SNAPSHOT_BYTES_MAX, Math.max(BYTES_MIN, (limitBytes - FIRST_BYTES) / 16)));
}

/**
 * Memory of open projects: a quarter of what the limit has beyond 256 MiB, and at most half of V8's heap
 * limit. A full heap ends the process.
 */
export function defaultOpenBytes(
  limitBytes = memoryLimit(),
  heapBytes = getHeapStatistics().heap_size_limit,
): number {
  return Math.floor(Math.min(heapBytes / 2, Math.max(BYTES_MIN, (limitBytes - FIRST_BYTES) / 4)));
}
