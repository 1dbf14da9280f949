import { RoundRobin } from '@bundoc/shared/runtime/round-robin';
import type { Work, WorkKind } from './work.ts';

/**
 * Requests of {@link COUNTED_KINDS} that run at a time while several subjects have some, and of each subject
 * at least. Work that has begun holds memory and what it has read. If all began at once, what was done for
 * those that are refused later would be lost.
 */
const ADMITTED_MAX = 64;
const ADMITTED_OF_SUBJECT_MIN = 4;

/** Work that holds many documents. Reads and writes of single ones also wait for the storage, in groups. */
const COUNTED_KINDS: ReadonlySet<WorkKind> = new Set(['query', 'projection', 'batch', 'patch']);

/**
 * Bounds the requests that run at a time for each subject, while several subjects have some. Others are
 * parked: they begin as those end, the projects of their subject in turn.
 */
export class Admission {
  /** Requests of each subject that run. */
  readonly #admitted = new Map<string, number>();
  /** Requests that may not begin yet, by subject, and by project. */
  readonly #parked = new Map<string, RoundRobin<Work>>();
  #size = 0;
  readonly #isUnbounded: (subject: string) => boolean;

  /** @param isUnbounded of which subjects any number may run. */
  constructor(isUnbounded: (subject: string) => boolean) {
    this.#isUnbounded = isUnbounded;
  }

  /** Number of parked requests. */
  get size(): number {
    return this.#size;
  }

  /** Subjects with parked requests. */
  get subjects(): string[] {
    return [...this.#parked.keys()];
  }

  /** Whether work that has not begun waits until others of its subject have ended. */
  mustPark(work: Work): boolean {
    if (work.isAdmitted || !isCounted(work)) return false;
    const { subject } = work.key;
    return this.#parked.has(subject) || this.#isFull(subject);
  }

  park(work: Work): void {
    const { subject, project } = work.key;
    const works = this.#parked.get(subject) ?? new RoundRobin<Work>();
    this.#parked.set(subject, works);
    works.add(project, work);
    this.#size++;
  }

  /** Ends a wait. */
  remove(work: Work): void {
    const { subject, project } = work.key;
    if (this.#parked.get(subject)?.remove(project, work) === true) this.#left(subject);
  }

  /** Takes the parked requests of a subject that may begin. Each must be admitted before the next. */
  *ready(subject: string): Generator<Work> {
    const works = this.#parked.get(subject);
    while (works !== undefined && !this.#isFull(subject)) {
      const work = works.next();
      if (work === undefined) return;
      this.#left(subject);
      yield work;
    }
  }

  /** One of the parked requests of a subject is gone. */
  #left(subject: string): void {
    this.#size--;
    if (this.#parked.get(subject)?.size === 0) this.#parked.delete(subject);
  }

  /** It counts from here on until it ends. */
  admit(work: Work): void {
    if (work.isAdmitted || !isCounted(work)) return;
    work.isAdmitted = true;
    const { subject } = work.key;
    this.#admitted.set(subject, (this.#admitted.get(subject) ?? 0) + 1);
  }

  /** @returns the subjects of which more may begin. */
  end(work: Work): readonly string[] {
    if (!work.isAdmitted) return [];
    work.isAdmitted = false;
    const { subject } = work.key;
    const left = (this.#admitted.get(subject) ?? 0) - 1;
    if (left > 0) {
      this.#admitted.set(subject, left);
      return [subject];
    }
    // There is one subject less, so each may have more.
    this.#admitted.delete(subject);
    return this.subjects;
  }

  #isFull(subject: string): boolean {
    const subjects = this.#admitted.size;
    if (subjects < 2 || this.#isUnbounded(subject)) return false;
    const max = Math.max(ADMITTED_OF_SUBJECT_MIN, Math.floor(ADMITTED_MAX / subjects));
    return (this.#admitted.get(subject) ?? 0) >= max;
  }
}

function isCounted({ isOwn, kind }: Work): boolean {
  return !isOwn && COUNTED_KINDS.has(kind);
}
