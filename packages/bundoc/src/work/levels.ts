import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { FairTurns } from './fair-turns.ts';

/** Time that all long work of the process takes on the event loop's thread in one turn, at most. */
export const SLICE_US = 2_000;

export interface Levelled {
  readonly key: ShareKey;
  /** Time that it has taken so far, in any thread. */
  readonly usedUs: number;
  /** Whether its subject has much less work than others have, at this moment. */
  readonly isOfLittle: boolean;
}

/**
 * A level with waiting tasks has a turn after the levels before it have taken one slice for each subject that
 * waits in them, and `beforeUsMax` at most. So long work gets an equal part of the time while few subjects
 * have short work. A turn that is shorter than a slice counts as a part of one.
 *
 * The first one is for tasks of subjects that have little work. A task is in the first of the others for
 * which it has taken little enough.
 *
 * The rounds of short tasks are short: subjects that begin some at the same time delay each other little.
 */
const LEVELS = [
  { usedUsMax: 20_000, isForLittle: true, sliceUs: SLICE_US, beforeUsMax: 0 },
  { usedUsMax: 500, isForLittle: false, sliceUs: 500, beforeUsMax: 6_000 },
  { usedUsMax: 2_000, isForLittle: false, sliceUs: SLICE_US, beforeUsMax: 7_000 },
  { usedUsMax: Number.POSITIVE_INFINITY, isForLittle: false, sliceUs: SLICE_US, beforeUsMax: 15_000 },
] as const;

interface Level<T> {
  readonly usedUsMax: number;
  readonly isForLittle: boolean;
  readonly turns: FairTurns<T>;
  readonly beforeUsMax: number;
  /** While it has waiting tasks: what the levels before have taken beyond its turns, and when it is due. */
  beforeUs: number;
  dueUs: number;
}

/**
 * Tasks that wait for a slice. One that has taken little comes before one that has taken more (multilevel
 * feedback, F. J. Corbató et al., 1962). One of a subject with little work comes before one of a subject
 * with much. So short work does not wait behind long work, even when there are too many subjects to give
 * each enough. Within a level, subjects take turns.
 */
export class Levels<T extends Levelled> {
  readonly #levels: readonly Level<T>[] = LEVELS.map(({ sliceUs, ...level }) => ({
    ...{ ...level, turns: new FairTurns<T>(sliceUs), beforeUs: 0, dueUs: 0 },
  }));

  /** The task that had the latest turn in a level, when that was due, and what is left of the turn. */
  #granted:
    | { readonly task: T; readonly level: Level<T>; readonly dueUs: number; leftUs: number }
    | undefined;

  /** Number of waiting tasks. */
  get size(): number {
    let size = 0;
    for (const { turns } of this.#levels) size += turns.size;
    return size;
  }

  /**
   * Whether a task of a subject with little would be the next one. It need not wait then. What others are
   * owed counts as if it did.
   */
  wouldBeNext(task: T): boolean {
    const own = this.#of(task);
    return own.isForLittle && own.turns.size === 0 && this.#nextLevel(own) === own;
  }

  add(task: T): void {
    this.#of(task).turns.add(task.key, task);
  }

  /** Removes a task, which may have taken more while it waited. */
  remove(task: T): void {
    for (const { turns } of this.#levels) turns.remove(task);
  }

  /** Charges time that a task has taken, before it counts as `usedUs`. */
  charge(task: T, us: number): void {
    const own = this.#of(task);
    own.turns.charge(task.key, us);
    const granted = this.#granted;
    if (granted?.task === task) {
      granted.leftUs -= us;
      if (granted.leftUs < 0) {
        const overUs = -granted.leftUs * (granted.dueUs / SLICE_US);
        granted.level.beforeUs = Math.max(0, granted.level.beforeUs - overUs);
        granted.leftUs = 0;
      }
    }
    for (const level of this.#levels.slice(this.#levels.indexOf(own) + 1))
      if (level.turns.size > 0) level.beforeUs += us;
  }

  /**
   * Takes the next task. The time that it takes must be charged in any case.
   *
   * @param us time that it may take, up to a slice. Its level has its next turn sooner if that is less.
   */
  next(us: number = SLICE_US): T | undefined {
    for (;;) {
      const level = this.#nextLevel();
      const task = level?.turns.next();
      if (level === undefined || task === undefined) return undefined;
      if (!level.isForLittle || task.isOfLittle) {
        this.#granted = { task, level, dueUs: level.dueUs, leftUs: us };
        // After less than a slice, the rest is still due to the level.
        const leftUs = Math.max(0, level.beforeUs - level.dueUs * (us / SLICE_US));
        level.beforeUs = us < SLICE_US ? Math.min(leftUs, level.dueUs) : 0;
        level.dueUs = 0;
        return task;
      }
      // Its subject has got more since.
      this.add(task);
    }
  }

  /**
   * The last one that is due, or else the first one with waiting tasks.
   *
   * @param coming has a task of one more subject.
   */
  #nextLevel(coming?: Level<T>): Level<T> | undefined {
    let chosen: Level<T> | undefined;
    let subjectsBefore = 0;
    for (const level of this.#levels) {
      const subjects = level.turns.subjects + (level === coming ? 1 : 0);
      if (subjects === 0) [level.beforeUs, level.dueUs] = [0, 0];
      else {
        level.dueUs = Math.max(level.dueUs, Math.min(level.beforeUsMax, subjectsBefore * SLICE_US));
        if (chosen === undefined || level.beforeUs >= level.dueUs) chosen = level;
      }
      subjectsBefore += subjects;
    }
    return chosen;
  }

  #of({ usedUs, isOfLittle }: T): Level<T> {
    const level = this.#levels.find((one) => usedUs < one.usedUsMax && (isOfLittle || !one.isForLittle));
    return level as Level<T>;
  }
}
