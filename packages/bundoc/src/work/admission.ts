import { RoundRobin } from '@bundoc/shared/runtime/round-robin';
import type { Work, WorkKind } from './work.ts';

/** Work that holds many documents. Reads and writes of single ones also wait for the storage, in groups. */
const COUNTED_KINDS: ReadonlySet<WorkKind> = new Set(['query', 'projection', 'batch', 'patch']);

/**
 * Bounds the requests of {@link COUNTED_KINDS} that run at a time, while several subjects have some. Others
 * are parked: they begin as those end, subjects in turn, and then the projects of a subject. Work that has
 * begun holds memory and what it has read. If all began at once, many would be refused later, and what was
 * done for them would be lost.
 *
 * One request of each subject runs in any case: those of others may wait long for a storage.
 *
 * One class, because each request that ends may let one of any subject begin.
 */
export class Admission {
  /** Requests of each subject that run. */
  readonly #admitted = new Map<string, number>();
  /** Those of them that have begun within the bound. Work of a sole subject leaves it to those that come. */
  readonly #bounded = new Set<Work>();
  /** Requests that may not begin yet, by subject in the order of their turns, and by project. */
  readonly #parked = new Map<string, RoundRobin<Work>>();
  #size = 0;
  readonly #max: number;
  readonly #isUnbounded: (subject: string) => boolean;

  /**
   * @param max requests that run at a time.
   * @param isUnbounded of which subjects any number may run.
   */
  constructor(max: number, isUnbounded: (subject: string) => boolean) {
    this.#max = max;
    this.#isUnbounded = isUnbounded;
  }

  /** Number of parked requests. */
  get size(): number {
    return this.#size;
  }

  /** Whether work that has not begun waits until others have ended. */
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

  /** Takes the next parked request that may begin. It must be admitted before the next is taken. */
  next(): Work | undefined {
    for (const [subject, works] of this.#parked) {
      if (this.#isFull(subject)) continue;
      const work = works.next();
      if (work === undefined) continue;
      // The turn of the next subject.
      this.#parked.delete(subject);
      this.#parked.set(subject, works);
      this.#left(subject);
      return work;
    }
    return undefined;
  }

  /** One of the parked requests of a subject is gone. */
  #left(subject: string): void {
    this.#size--;
    if (this.#parked.get(subject)?.size === 0) this.#parked.delete(subject);
  }

  /** It counts from here on until it ends. */
  admit(work: Work): void {
    if (work.isAdmitted || !isCounted(work)) return;
    const { subject } = work.key;
    if (!this.#isFree(subject)) this.#bounded.add(work);
    work.isAdmitted = true;
    this.#admitted.set(subject, this.#of(subject) + 1);
  }

  /** @returns whether others may begin now: take them with {@link next}. */
  end(work: Work): boolean {
    if (!work.isAdmitted) return false;
    work.isAdmitted = false;
    this.#bounded.delete(work);
    const { subject } = work.key;
    const left = this.#of(subject) - 1;
    if (left > 0) this.#admitted.set(subject, left);
    else this.#admitted.delete(subject);
    return true;
  }

  #of(subject: string): number {
    return this.#admitted.get(subject) ?? 0;
  }

  /** Number of subjects with running requests, and this one. */
  #subjectsWith(subject: string): number {
    return this.#admitted.size + (this.#admitted.has(subject) ? 0 : 1);
  }

  /** Whether any number of a subject may run. */
  #isFree(subject: string): boolean {
    return this.#subjectsWith(subject) < 2 || this.#isUnbounded(subject);
  }

  /** Whether no more of a subject may begin: all places are taken, or it has its share of them. */
  #isFull(subject: string): boolean {
    const own = this.#of(subject);
    if (own === 0 || this.#isFree(subject)) return false;
    return this.#bounded.size >= this.#max || own >= this.#max / this.#subjectsWith(subject);
  }
}

function isCounted({ isOwn, kind }: Work): boolean {
  return !isOwn && COUNTED_KINDS.has(kind);
}
