import type { Clock } from '@bundoc/shared/runtime/clock';
import { Share } from '@bundoc/shared/shares/share';
import { PAGE_BYTES_MAX } from './engine/page-limits.ts';
import { COMMIT_BYTES_MAX } from './engine/port.ts';

const MIB = 1_048_576;
/** What a subject, and a project, may hold of what cannot be taken back: a quarter, and an eighth. */
const SUBJECT_PART = 4;
const PROJECT_PART = 8;
const CAPACITY_BYTES_MAX = 1_024 * MIB;

/**
 * Bytes for queries, sorts, aggregates, batches and patches at work: a quarter of the memory of the process,
 * up to 1 GiB. With the least, one project still has room for a page or a commit of the largest size.
 */
export function workingMemoryBytes(memoryBytes: number, documentBytesMax: number): number {
  const largest = Math.max(COMMIT_BYTES_MAX, PAGE_BYTES_MAX + 2 * documentBytesMax + 4 * MIB);
  return Math.max(PROJECT_PART * largest, Math.min(CAPACITY_BYTES_MAX, Math.floor(memoryBytes / 4)));
}

/** The memory that long work holds. Nobody waits for it: who waits would hold what it has already. */
export function workingMemory(capacity: number, clock: Clock): Share {
  return new Share({
    name: 'working_memory',
    capacity,
    subjectMax: capacity / SUBJECT_PART,
    projectMax: capacity / PROJECT_PART,
    waitMs: 0,
    clock,
  });
}

/** Pieces of long work that wait at a time. */
const WORK_MAX = 1_024;

/** Room for long work that has to wait for the processor. */
export function roomForWork(clock: Clock): Share {
  return new Share({
    name: 'waiting_work',
    capacity: WORK_MAX,
    subjectMax: WORK_MAX / SUBJECT_PART,
    projectMax: WORK_MAX / PROJECT_PART,
    waitMs: 0,
    clock,
  });
}
