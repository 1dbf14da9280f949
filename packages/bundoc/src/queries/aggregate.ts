import { AppError } from '@bundoc/shared/contract/app-error';
import type { Figure } from '@bundoc/shared/contract/query';
import { encodeExactly } from '../values/key.ts';
import { type Path, pathOf } from '../values/path.ts';
import type { Value } from '../values/value.ts';
import { sortInSteps } from '../work/sort-in-steps.ts';
import type { Work } from '../work/work.ts';
import { type Accumulator, accumulatorName, accumulatorOf, weightOf } from './accumulators.ts';

/** Maximum number of groups in one answer, and bytes of their state. */
const GROUPS_MAX = 10_000;
const GROUPS_BYTES_MAX = 16_777_216;

/** Approximate memory of a group and of a figure without its values. */
const GROUP_BYTES = 200;
const FIGURE_BYTES = 200;

interface Group {
  /** Undefined for a field that the documents of the group lack. */
  readonly values: readonly (Value | undefined)[];
  readonly accumulators: Accumulator[];
}

export interface GroupResult {
  readonly values: readonly (Value | undefined)[];
  /** In the order of the requested figures. */
  readonly figures: readonly Value[];
}

/**
 * Figures of documents, by group. All are exact, whatever the order of the documents. Absent values and null
 * only count in `count`; values other than numbers are not in sums.
 */
export class Aggregation {
  readonly #groupBy: readonly Path[];
  readonly #figures: readonly Figure[];
  /** One figure for each accumulator of a group, and which one each figure has. */
  readonly #kept: readonly Figure[];
  readonly #places: readonly number[];
  readonly #groups = new Map<string, Group>();
  #bytes = 0;

  constructor(groupBy: readonly string[], figures: readonly Figure[]) {
    this.#groupBy = groupBy.map(pathOf);
    this.#figures = figures;
    const names = figures.map(accumulatorName);
    const kept = [...new Set(names)];
    this.#kept = kept.map((name) => figures[names.indexOf(name)] as Figure);
    this.#places = names.map((name) => kept.indexOf(name));
    // Without grouping there is one group, even without documents.
    if (groupBy.length === 0) this.#group([], '');
  }

  /** @throws AppError `query_too_expensive` when the groups become too many or too large. */
  add(found: readonly (Value | undefined)[]): void {
    const values = found.slice(0, this.#groupBy.length);
    const key = values.map(encodeExactly).join('');
    const group = this.#groups.get(key) ?? this.#group(values, key);
    for (const [at, accumulator] of group.accumulators.entries()) {
      const before = accumulator.bytes;
      accumulator.add(found[values.length + at]);
      if (accumulator.bytes !== before) this.#hold(accumulator.bytes - before);
    }
  }

  /** The paths whose first values {@link add} takes. */
  get paths(): readonly Path[] {
    const ofFigures = this.#kept.map((figure) => (figure.op === 'count' ? [] : pathOf(figure.field)));
    return [...this.#groupBy, ...ofFigures];
  }

  /** Estimated memory of the groups, bytes. */
  get bytes(): number {
    return this.#bytes + this.#groups.size * (GROUP_BYTES + this.#kept.length * FIGURE_BYTES);
  }

  /**
   * In the order of the groups' values. Yields between any two figures.
   *
   * @throws AppError `query_too_expensive` when figures that share values become too large.
   */
  async results(work: Work): Promise<GroupResult[]> {
    const results: GroupResult[] = [];
    for (const key of await sortInSteps([...this.#groups.keys()], work)) {
      const { values, accumulators } = this.#groups.get(key) as Group;
      results.push({ values, figures: await this.#figuresOf(accumulators, work) });
    }
    return results;
  }

  async #figuresOf(accumulators: readonly Accumulator[], work: Work): Promise<Value[]> {
    const values: Value[] = [];
    for (const [at, figure] of this.#figures.entries()) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      const place = this.#places[at] as number;
      const value = await (accumulators[place] as Accumulator).result(figure, work);
      // An accumulator's bytes count for one figure alone.
      if (this.#kept[place] !== figure) this.#hold(weightOf(value));
      values.push(value);
    }
    return values;
  }

  #group(values: readonly (Value | undefined)[], key: string): Group {
    const accumulators = this.#kept.map(accumulatorOf);
    const group = { values, accumulators };
    this.#groups.set(key, group);
    this.#hold(2 * key.length);
    return group;
  }

  #hold(bytes: number): void {
    this.#bytes += bytes;
    if (this.#groups.size > GROUPS_MAX || this.#bytes > GROUPS_BYTES_MAX)
      throw new AppError('query_too_expensive', {
        detail: `more than ${GROUPS_MAX} groups, or ${GROUPS_BYTES_MAX} bytes of them; narrow the condition`,
      });
  }
}
