import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** The waiting items of one name. */
class Waiting<C> {
  readonly inner: C;
  /** Time taken and not yet granted; negative for time granted and not yet taken. */
  debtUs: number;
  /** The part of the last turn that was charged in advance. */
  prepaidUs = 0;

  constructor(inner: C, debtUs: number) {
    this.inner = inner;
    this.debtUs = debtUs;
  }
}

/** Maximum number of turns in one slice: each is charged at least this fraction of it. */
export const TURNS_OF_SLICE = 32;

/**
 * Names that take turns. Each round grants each name a slice. A name in debt is skipped until rounds have
 * repaid it. A name with an unused part of its slice, because it is new or was idle, goes before the others.
 */
class Ring<C extends { readonly size: number }> {
  readonly #sliceUs: number;
  readonly #make: () => C;
  /** In the order of the round. Idle names are dropped when the round reaches them without debt. */
  readonly #round = new Map<string, Waiting<C>>();
  /** Names with an unused part of their slice, in order of arrival. */
  readonly #early = new Set<string>();
  /** Number of names with waiting items. */
  #active = 0;

  constructor(sliceUs: number, make: () => C) {
    this.#sliceUs = sliceUs;
    this.#make = make;
  }

  /** Number of names with waiting items. */
  get size(): number {
    return this.#active;
  }

  /** Whether a name has waiting items. */
  has(name: string): boolean {
    return (this.#round.get(name)?.inner.size ?? 0) > 0;
  }

  /** Changes the waiting items of a name. */
  change(name: string, change: (inner: C) => void): void {
    const { inner, debtUs } = this.#of(name);
    const wasActive = inner.size > 0;
    change(inner);
    const isActive = inner.size > 0;
    this.#active += Number(isActive) - Number(wasActive);
    if (!isActive) this.#early.delete(name);
    else if (!wasActive && debtUs < 0) this.#early.add(name);
  }

  /** Charges time to a name. */
  charge(name: string, us: number, chargeInner?: (inner: C) => void): void {
    const waiting = this.#of(name);
    const moreUs = Math.max(0, us - waiting.prepaidUs);
    waiting.prepaidUs -= us - moreUs;
    waiting.debtUs = Math.min(DEBT_MAX_US, waiting.debtUs + moreUs);
    if (waiting.debtUs >= 0) this.#early.delete(name);
    else if (waiting.inner.size > 0) this.#early.add(name);
    chargeInner?.(waiting.inner);
  }

  /** Takes the next name and moves it to the end; undefined when nothing waits. */
  next(): { readonly name: string; readonly inner: C } | undefined {
    if (this.#active === 0) return undefined;
    const [early] = this.#early;
    if (early !== undefined) return this.#grant(early, this.#of(early));
    this.#payRounds();
    for (const [name, waiting] of this.#round) {
      const isActive = waiting.inner.size > 0;
      waiting.debtUs = Math.max(isActive ? -this.#sliceUs : 0, waiting.debtUs - this.#sliceUs);
      if (isActive && waiting.debtUs < 0) return this.#grant(name, waiting);
      this.#round.delete(name);
      if (isActive || waiting.debtUs > 0) this.#round.set(name, waiting);
    }
    return undefined;
  }

  /** Grants all rounds in which no name would have a turn at once: a debt may last for hundreds. */
  #payRounds(): void {
    let rounds = Number.POSITIVE_INFINITY;
    for (const { inner, debtUs } of this.#round.values())
      if (inner.size > 0) rounds = Math.min(rounds, Math.floor(debtUs / this.#sliceUs));
    if (rounds <= 0) return;
    for (const [name, waiting] of this.#round) {
      const isActive = waiting.inner.size > 0;
      waiting.debtUs = Math.max(0, waiting.debtUs - rounds * this.#sliceUs);
      if (!isActive && waiting.debtUs === 0) this.#round.delete(name);
    }
  }

  clear(): void {
    this.#round.clear();
    this.#early.clear();
    this.#active = 0;
  }

  #grant(name: string, waiting: Waiting<C>): { readonly name: string; readonly inner: C } {
    this.#early.delete(name);
    this.#round.delete(name);
    this.#round.set(name, waiting);
    waiting.prepaidUs = this.#sliceUs / TURNS_OF_SLICE;
    waiting.debtUs += waiting.prepaidUs;
    return { name, inner: waiting.inner };
  }

  #of(name: string): Waiting<C> {
    const present = this.#round.get(name);
    if (present !== undefined) return present;
    const waiting = new Waiting(this.#make(), -this.#sliceUs);
    this.#round.set(name, waiting);
    return waiting;
  }
}

/** Maximum debt of one name. It bounds the wait after a single long step. */
const DEBT_MAX_US = 1_000_000;

/**
 * Tasks that wait for a slice: subjects take turns, then the projects of a subject, then the tasks of a
 * project. A task that takes longer than a slice is skipped until the others had as much. It is deficit round
 * robin (M. Shreedhar and G. Varghese, 1995), with debt instead of a lookahead.
 *
 * Names that have not used their slice of a round go first (sparse flows, RFC 8290), so that short work
 * hardly waits for long work. The wait is at most two slices of each other subject.
 */
export class FairTurns<T> {
  readonly #subjects: Ring<Ring<Set<T>>>;
  readonly #keys = new Map<T, ShareKey>();

  constructor(sliceUs: number) {
    this.#subjects = new Ring(sliceUs, () => new Ring(sliceUs, () => new Set<T>()));
  }

  /** Number of waiting tasks. */
  get size(): number {
    return this.#keys.size;
  }

  /** Number of subjects with a waiting task. */
  get subjects(): number {
    return this.#subjects.size;
  }

  /** Whether a task of a subject waits. */
  waits(subject: string): boolean {
    return this.#subjects.has(subject);
  }

  /** Appends a task to its project. */
  add(key: ShareKey, task: T): void {
    this.#keys.set(task, key);
    this.#subjects.change(key.subject, (projects) =>
      projects.change(key.project, (tasks) => tasks.add(task)),
    );
  }

  /** Removes a task. */
  remove(task: T): void {
    const key = this.#keys.get(task);
    if (key === undefined) return;
    this.#keys.delete(task);
    this.#subjects.change(key.subject, (projects) =>
      projects.change(key.project, (tasks) => tasks.delete(task)),
    );
    this.#forgetDebts();
  }

  /** Takes the next task. The time that it takes must be charged in any case. */
  next(): T | undefined {
    const subject = this.#subjects.next();
    const project = subject?.inner.next();
    const [task] = project?.inner ?? [];
    if (task === undefined) return undefined;
    this.#keys.delete(task);
    this.#subjects.change(subject?.name ?? '', (projects) =>
      projects.change(project?.name ?? '', (tasks) => tasks.delete(task)),
    );
    return task;
  }

  /** Charges time. Only matters while others wait. */
  charge({ subject, project }: ShareKey, us: number): void {
    if (this.#keys.size > 0) this.#subjects.charge(subject, us, (projects) => projects.charge(project, us));
    else this.#forgetDebts();
  }

  /** Without waiting tasks, debts are forgotten. */
  #forgetDebts(): void {
    if (this.#keys.size === 0) this.#subjects.clear();
  }
}
