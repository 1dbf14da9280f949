import { AppError } from '@bundoc/shared/errors';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Memory of queries, sorts, aggregates, batches and patches at work. */
export interface WorkingMemory {
  /** @throws AppError `rate_limited` when it is beyond a share, `overloaded` when all is taken; nothing is reserved then. */
  reserve(key: ShareKey, bytes: number): void;
  /** Of what was reserved. */
  release(key: ShareKey, bytes: number): void;
}

const MIB = 1_048_576;
/** What a share is of the capacity: such memory cannot be taken back. */
const SUBJECT_PART = 4;
const PROJECT_PART = 8;

/** A quarter of the memory of the process, within bounds: one project can sort a page of the largest size with the least. */
export function workingMemoryBytes(memoryBytes: number): number {
  return Math.min(1_024 * MIB, Math.max(256 * MIB, Math.floor(memoryBytes / 4)));
}

/** Counts by subject and project. The service's own work has no share and counts for the capacity alone. */
export class SharedWorkingMemory implements WorkingMemory {
  readonly #capacityBytes: number;
  readonly #subjects = new Map<string, number>();
  readonly #projects = new Map<string, number>();
  #bytes = 0;

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
  }

  /** All that is reserved. */
  get bytes(): number {
    return this.#bytes;
  }

  reserve({ subject, project }: ShareKey, bytes: number): void {
    const capacity = this.#capacityBytes;
    if (subject !== '') {
      if ((this.#projects.get(project) ?? 0) + bytes > capacity / PROJECT_PART) throw beyondShare('project');
      if ((this.#subjects.get(subject) ?? 0) + bytes > capacity / SUBJECT_PART) throw beyondShare('token');
      if (this.#bytes + bytes > capacity)
        throw new AppError('overloaded', {
          detail: 'the memory for queries and batches is full',
          retryAfterS: 1,
        });
    }
    add(this.#subjects, subject, bytes);
    add(this.#projects, project, bytes);
    this.#bytes += bytes;
  }

  release({ subject, project }: ShareKey, bytes: number): void {
    add(this.#subjects, subject, -bytes);
    add(this.#projects, project, -bytes);
    this.#bytes -= bytes;
  }
}

function add(counts: Map<string, number>, name: string, bytes: number): void {
  const sum = (counts.get(name) ?? 0) + bytes;
  if (sum === 0) counts.delete(name);
  else counts.set(name, sum);
}

function beyondShare(owner: 'project' | 'token'): AppError {
  return new AppError('rate_limited', {
    detail: `the share "working_memory" of the ${owner} is used up: fewer queries and batches at a time, or smaller ones`,
    retryAfterS: 1,
  });
}
