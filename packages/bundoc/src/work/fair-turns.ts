import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Those of one name who wait. */
class Waiting<C> {
  readonly inner: C;
  /** Time that was taken and not given yet; below zero it was given and not taken. */
  debtUs = 0;

  constructor(inner: C) {
    this.inner = inner;
  }
}

/** Names in turn. Each round gives each a slice; one that is in debt is passed over until rounds have paid for it. */
class Ring<C extends { readonly size: number }> {
  readonly #sliceUs: number;
  readonly #make: () => C;
  /** The first is next. */
  readonly #waiting = new Map<string, Waiting<C>>();
  /** How many have somebody who waits. */
  #active = 0;

  constructor(sliceUs: number, make: () => C) {
    this.#sliceUs = sliceUs;
    this.#make = make;
  }

  /** Names with somebody who waits. */
  get size(): number {
    return this.#active;
  }

  /** Changes what waits under a name. */
  change(name: string, change: (inner: C) => void): void {
    const { inner } = this.#of(name);
    const wasActive = inner.size > 0;
    change(inner);
    this.#active += Number(inner.size > 0) - Number(wasActive);
  }

  /** Forgets a name that has nobody who waits, and owes nothing. */
  forgetIdle(name: string): void {
    const waiting = this.#waiting.get(name);
    if (waiting?.inner.size === 0 && waiting.debtUs <= 0) this.#waiting.delete(name);
  }

  /** Time that was taken under a name. */
  charge(name: string, us: number, chargeInner?: (inner: C) => void): void {
    const waiting = this.#of(name);
    waiting.debtUs = Math.min(DEBT_MAX_US, waiting.debtUs + us);
    chargeInner?.(waiting.inner);
    this.forgetIdle(name);
  }

  /** The name whose turn it is, which then is the last; undefined when nobody waits. */
  next(): { readonly name: string; readonly inner: C } | undefined {
    if (this.#active === 0) return undefined;
    // A name that is put back is met again: the loop ends once debts are paid.
    for (const [name, waiting] of this.#waiting) {
      const { inner, debtUs } = waiting;
      waiting.debtUs = Math.max(inner.size > 0 ? -this.#sliceUs : 0, debtUs - this.#sliceUs);
      this.#waiting.delete(name);
      this.#waiting.set(name, waiting);
      if (inner.size > 0 && waiting.debtUs < 0) return { name, inner };
      this.forgetIdle(name);
    }
    return undefined;
  }

  clear(): void {
    this.#waiting.clear();
    this.#active = 0;
  }

  #of(name: string): Waiting<C> {
    const present = this.#waiting.get(name);
    if (present !== undefined) return present;
    const waiting = new Waiting(this.#make());
    this.#waiting.set(name, waiting);
    return waiting;
  }
}

/** What one name may owe. Bounds how long a single long step keeps it waiting. */
const DEBT_MAX_US = 1_000_000;

/**
 * Who waits for a slice: subjects in turn, then the projects of a subject, then the tasks of a project. Whoever takes longer than a slice is
 * passed over until the others had as much (deficit round robin, M. Shreedhar and G. Varghese, 1995; with debt instead of a look ahead).
 *
 * A subject without debt is the next one after at most as many others as there are subjects.
 */
export class FairTurns<T> {
  readonly #subjects: Ring<Ring<Set<T>>>;
  readonly #keys = new Map<T, ShareKey>();

  constructor(sliceUs: number) {
    this.#subjects = new Ring(sliceUs, () => new Ring(sliceUs, () => new Set<T>()));
  }

  /** Tasks that wait. */
  get size(): number {
    return this.#keys.size;
  }

  /** Joins at the end of its project. */
  add(key: ShareKey, task: T): void {
    this.#keys.set(task, key);
    this.#subjects.change(key.subject, (projects) =>
      projects.change(key.project, (tasks) => tasks.add(task)),
    );
  }

  /** Leaves at once. */
  remove(task: T): void {
    const key = this.#keys.get(task);
    if (key === undefined) return;
    this.#keys.delete(task);
    this.#subjects.change(key.subject, (projects) => {
      projects.change(key.project, (tasks) => tasks.delete(task));
      projects.forgetIdle(key.project);
    });
    this.#subjects.forgetIdle(key.subject);
    this.#forgetDebts();
  }

  /** The task whose turn it is; it waits no more. What it takes is to be charged in any case. */
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

  /** Time that was taken. Of interest only while others wait. */
  charge({ subject, project }: ShareKey, us: number): void {
    if (this.#keys.size > 0) this.#subjects.charge(subject, us, (projects) => projects.charge(project, us));
    else this.#forgetDebts();
  }

  /** Where nobody waits, nobody is owed anything. */
  #forgetDebts(): void {
    if (this.#keys.size === 0) this.#subjects.clear();
  }
}
