import type { Clock } from '@bundoc/shared/runtime/clock';
import { Share } from '@bundoc/shared/shares/share';
import { PAGE_BYTES_MAX } from './engine/page-limits.ts';
import { COMMIT_BYTES_MAX } from './engine/port.ts';

const MIB = 1_048_576;
/**
 * Fractions of the memory that a subject and a project may hold, because it cannot be reclaimed: a quarter,
 * and an eighth.
 */
const SUBJECT_PART = 4;
const PROJECT_PART = 8;
const CAPACITY_BYTES_MAX = 512 * MIB;

/** Bytes that the largest page or commit takes. */
function largestBytes(documentBytesMax: number): number {
  return Math.max(COMMIT_BYTES_MAX, PAGE_BYTES_MAX + 2 * documentBytesMax + 4 * MIB);
}

/**
 * Memory for running queries, sorts, aggregates, batches and patches: a quarter of the process's memory, up
 * to 512 MiB. Even the minimum has space in one subject for the largest page or commit.
 */
export function workingMemoryBytes(memoryBytes: number, documentBytesMax: number): number {
  const least = SUBJECT_PART * largestBytes(documentBytesMax);
  return Math.max(least, Math.min(CAPACITY_BYTES_MAX, Math.floor(memoryBytes / 4)));
}

/**
 * How many queries, projections, batches and patches of several subjects run at a time: as many as their
 * largest pages fit into the working memory.
 */
export function requestsMax(capacity: number): number {
  return Math.floor(capacity / PAGE_BYTES_MAX);
}

/**
 * The memory of long work. Nobody waits for it, because a waiter would keep what it already holds. A project
 * that holds nothing else has room for the largest page or commit, also where that is more than its part.
 */
export function workingMemory(memoryBytes: number, documentBytesMax: number, clock: Clock): Share {
  const capacity = workingMemoryBytes(memoryBytes, documentBytesMax);
  return new Share({
    name: 'working memory',
    capacity,
    subjectMax: capacity / SUBJECT_PART,
    projectMax: Math.max(capacity / PROJECT_PART, largestBytes(documentBytesMax)),
    waitMs: 0,
    clock,
  });
}

/** Maximum number of waiting pieces of long work. */
const WORK_MAX = 1_024;

/** Places for long work that waits for the processor. */
export function waitingWork(clock: Clock): Share {
  return new Share({
    name: 'waiting work',
    capacity: WORK_MAX,
    subjectMax: WORK_MAX / SUBJECT_PART,
    projectMax: WORK_MAX / PROJECT_PART,
    waitMs: 0,
    clock,
  });
}
