import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Those of one name who wait. */
class Waiting<C> {
  readonly inner: C;
  /** Time that was taken and not given yet; below zero it was given and not taken. */
  debtUs: number;
  /** What the last turn was charged for beforehand. */
  prepaidUs = 0;

  constructor(inner: C, debtUs: number) {
    this.inner = inner;
    this.debtUs = debtUs;
  }
}

/** Turns into which a slice goes at most: each is charged for a part of it, even if it takes less. */
export const TURNS_OF_SLICE = 32;

/**
 * Names in turn. Each round gives each a slice. One that is in debt is passed over until rounds have paid for
 * it; one that has not used its slice up, as it is new or had nothing to do meanwhile, comes before the
 * others.
 */
class Ring<C extends { readonly size: number }> {
  readonly #sliceUs: number;
  readonly #make: () => C;
  /**
   * In the order of the round. Names without anybody who waits are forgotten when the round comes to them,
   * and they owe nothing.
   */
  readonly #round = new Map<string, Waiting<C>>();
  /** Those with a part of their slice left, first come first. */
  readonly #early = new Set<string>();
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

  /** Whether somebody waits under a name. */
  has(name: string): boolean {
    return (this.#round.get(name)?.inner.size ?? 0) > 0;
  }

  /** Changes what waits under a name. */
  change(name: string, change: (inner: C) => void): void {
    const { inner, debtUs } = this.#of(name);
    const wasActive = inner.size > 0;
    change(inner);
    const isActive = inner.size > 0;
    this.#active += Number(isActive) - Number(wasActive);
    if (!isActive) this.#early.delete(name);
    else if (!wasActive && debtUs < 0) this.#early.add(name);
  }

  /** Time that was taken under a name. */
  charge(name: string, us: number, chargeInner?: (inner: C) => void): void {
    const waiting = this.#of(name);
    const moreUs = Math.max(0, us - waiting.prepaidUs);
    waiting.prepaidUs -= us - moreUs;
    waiting.debtUs = Math.min(DEBT_MAX_US, waiting.debtUs + moreUs);
    if (waiting.debtUs >= 0) this.#early.delete(name);
    else if (waiting.inner.size > 0) this.#early.add(name);
    chargeInner?.(waiting.inner);
  }

  /** The name whose turn it is, which then is the last; undefined when nobody waits. */
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

  /** Pays for the rounds in which nobody would have a turn, all at once: a debt may last for hundreds. */
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

/** What one name may owe. Bounds how long a single long step keeps it waiting. */
const DEBT_MAX_US = 1_000_000;

/**
 * Who waits for a slice: subjects in turn, then the projects of a subject, then the tasks of a project.
 * Anyone who takes longer than a slice is passed over until the others had as much (deficit round robin, M.
 * Shreedhar and G. Varghese, 1995; with debt instead of a look ahead).
 *
 * Who has not used their slice of a round comes first (sparse flows, RFC 8290), so that short work hardly
 * waits for long work. Nobody waits for more than two slices of each other subject.
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

  /** Subjects with a task that waits. */
  get subjects(): number {
    return this.#subjects.size;
  }

  /** Whether a task of a subject waits. */
  waits(subject: string): boolean {
    return this.#subjects.has(subject);
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
    this.#subjects.change(key.subject, (projects) =>
      projects.change(key.project, (tasks) => tasks.delete(task)),
    );
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
