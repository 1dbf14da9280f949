import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { FairTurns } from './fair-turns.ts';

export interface Levelled {
  readonly key: ShareKey;
  /** Time that it has taken so far, in any thread. */
  readonly usedUs: number;
  /** Whether its subject has much less work than others have, at this moment. */
  readonly isOfLittle: boolean;
}

/**
 * A level with waiting tasks has a turn after one for each subject that waits in the levels before it, and
 * after `passedMax` at most. So long work gets an equal part while few subjects have short work.
 *
 * The first one is for tasks of subjects that have little work. A task is in the first of the others for
 * which it has taken little enough.
 *
 * The rounds of short tasks are short: subjects that begin some at the same time delay each other little.
 */
const LEVELS = [
  { usedUsMax: 20_000, isForLittle: true, sliceUs: 2_000, passedMax: Number.POSITIVE_INFINITY },
  { usedUsMax: 500, isForLittle: false, sliceUs: 500, passedMax: 3 },
  { usedUsMax: 2_000, isForLittle: false, sliceUs: 2_000, passedMax: 7 },
  { usedUsMax: Number.POSITIVE_INFINITY, isForLittle: false, sliceUs: 2_000, passedMax: 15 },
] as const;

interface Level<T> {
  readonly usedUsMax: number;
  readonly isForLittle: boolean;
  readonly turns: FairTurns<T>;
  readonly passedMax: number;
  /** Since it had a turn or no waiting tasks: turns of the levels before, and after how many it has one. */
  passed: number;
  passedUntil: number;
}

/**
 * Tasks that wait for a slice. One that has taken little comes before one that has taken more (multilevel
 * feedback, F. J. Corbató et al., 1962). One of a subject with little work comes before one of a subject
 * with much. So short work does not wait behind long work, even when there are too many subjects to give
 * each enough. Within a level, subjects take turns.
 */
export class Levels<T extends Levelled> {
  readonly #levels: readonly Level<T>[] = LEVELS.map(({ sliceUs, ...level }) => ({
    ...{ ...level, turns: new FairTurns<T>(sliceUs), passed: 0, passedUntil: 0 },
  }));

  /** Number of waiting tasks. */
  get size(): number {
    let size = 0;
    for (const { turns } of this.#levels) size += turns.size;
    return size;
  }

  add(task: T): void {
    this.#of(task).add(task.key, task);
  }

  /** Removes a task, which may have taken more while it waited. */
  remove(task: T): void {
    for (const { turns } of this.#levels) turns.remove(task);
  }

  /** Charges time that a task has taken, before it counts as `usedUs`. */
  charge(task: T, us: number): void {
    this.#of(task).charge(task.key, us);
  }

  /** Takes the next task. The time that it takes must be charged in any case. */
  next(): T | undefined {
    for (;;) {
      const level = this.#nextLevel();
      const task = level?.turns.next();
      if (task === undefined || level?.isForLittle !== true || task.isOfLittle) return task;
      // Its subject has got more since.
      this.add(task);
    }
  }

  /** The last one that is due, or else the first one with waiting tasks. */
  #nextLevel(): Level<T> | undefined {
    let chosen: Level<T> | undefined;
    let subjectsBefore = 0;
    for (const level of this.#levels) {
      const { turns, passed, passedMax } = level;
      if (turns.size === 0) [level.passed, level.passedUntil] = [0, 0];
      else {
        level.passedUntil = Math.max(level.passedUntil, Math.min(passedMax, subjectsBefore));
        if (chosen === undefined || passed >= level.passedUntil) chosen = level;
      }
      subjectsBefore += turns.subjects;
    }
    if (chosen === undefined) return undefined;
    for (const level of this.#levels.slice(this.#levels.indexOf(chosen) + 1)) level.passed++;
    [chosen.passed, chosen.passedUntil] = [0, 0];
    return chosen;
  }

  #of({ usedUs, isOfLittle }: T): FairTurns<T> {
    const level = this.#levels.find((one) => usedUs < one.usedUsMax && (isOfLittle || !one.isForLittle));
    return (level as Level<T>).turns;
  }
}
