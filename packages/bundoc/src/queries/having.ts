import { AppError } from '@bundoc/shared/contract/app-error';
import { describeUnknown } from '@bundoc/shared/logs/unknown-names';
import { type Value, weightOf } from '../values/value.ts';
import type { GroupResult } from './aggregate.ts';
import { compileWhere, type Predicate } from './evaluate.ts';
import { type QueryExecution, WORK_AT_ONCE_MAX } from './execution.ts';
import { operatorsOf, type Where } from './where.ts';

/** What holds for the figures of a group in the answer. */
export class Having {
  readonly #names: readonly string[];
  readonly #holds: Predicate;
  readonly #operators: number;

  /** @param names of the figures, in their order. */
  constructor(where: Where, names: readonly string[]) {
    this.#names = names;
    this.#holds = compileWhere(where);
    this.#operators = operatorsOf(where);
  }

  /** Whether a group is in the answer. @throws AppError `query_too_expensive`. */
  holds({ figures }: GroupResult, run: QueryExecution): boolean {
    const value: Value = Object.fromEntries(this.#names.map((name, at) => [name, figures[at] as Value]));
    const comparisons = weightOf(value) * this.#operators;
    if (comparisons > WORK_AT_ONCE_MAX)
      throw new AppError('query_too_expensive', {
        detail: `"having" would make more than ${WORK_AT_ONCE_MAX} comparisons for one group; use fewer operators, or smaller figures such as countDistinct`,
      });
    run.spendWork(comparisons);
    return this.#holds(value);
  }
}

/** The fault of a condition that tests anything but these figures; undefined for none. */
export function faultOfHaving(where: Where, names: readonly string[]): string | undefined {
  const unknown = [...testedBy(where)].filter((name) => !names.includes(name));
  return unknown.length === 0 ? undefined : describeUnknown(unknown, names);
}

/** The first names of all paths. */
function testedBy(where: Where): ReadonlySet<string> {
  if (where.kind !== 'field') return new Set(where.clauses.flatMap((clause) => [...testedBy(clause)]));
  return new Set(where.path.slice(0, 1));
}
