import { AppError } from '@bundoc/shared/contract/app-error';
import type { Figure } from '@bundoc/shared/contract/query';
import { Decimal, toDouble } from '@bundoc/shared/json/decimal';
import { compareValues } from '../values/compare.ts';
import { encodeExactly } from '../values/key.ts';
import { type Path, pathOf } from '../values/path.ts';
import { typeOf, type Value } from '../values/value.ts';
import { sortInSteps } from '../work/sort-in-steps.ts';
import type { Work } from '../work/work.ts';

/** Maximum number of groups in one answer, and bytes of their state. */
const GROUPS_MAX = 10_000;
const GROUPS_BYTES_MAX = 16_777_216;

/** Approximate memory of a group and of a figure without its values. */
const GROUP_BYTES = 200;
const FIGURE_BYTES = 100;

/** The state of one figure in one group. */
interface Accumulator {
  count: number;
  sum: number;
  best: Value | undefined;
}

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
 * Figures of documents, by group. Sums and averages use doubles (IEEE 754), the nearest to each number.
 * Minimum and maximum are exact, in the order of all values. Absent values and null only count in `count`;
 * values other than numbers are not in sums.
 */
export class Aggregation {
  readonly #groupBy: readonly Path[];
  readonly #figures: readonly { readonly op: Figure['op']; readonly path: Path }[];
  readonly #groups = new Map<string, Group>();
  #bytes = 0;

  constructor(groupBy: readonly string[], figures: readonly Figure[]) {
    this.#groupBy = groupBy.map(pathOf);
    this.#figures = figures.map((figure) => ({
      op: figure.op,
      path: figure.op === 'count' ? [] : pathOf(figure.field),
    }));
    // Without grouping there is one group, even without documents.
    if (groupBy.length === 0) this.#group([], '');
  }

  /** @throws AppError `query_too_expensive` when the groups become too many or too large. */
  add(found: readonly (Value | undefined)[]): void {
    const values = found.slice(0, this.#groupBy.length);
    const key = values.map(encodeExactly).join('');
    const group = this.#groups.get(key) ?? this.#group(values, key);
    for (const [at, { op }] of this.#figures.entries()) {
      const accumulator = group.accumulators[at] as Accumulator;
      if (op === 'count') accumulator.count++;
      else this.#take(accumulator, op, found[this.#groupBy.length + at]);
    }
  }

  /** The paths whose first values {@link add} takes. */
  get paths(): readonly Path[] {
    return [...this.#groupBy, ...this.#figures.map(({ path }) => path)];
  }

  /** Estimated memory of the groups, bytes. */
  get bytes(): number {
    return this.#bytes + this.#groups.size * (GROUP_BYTES + this.#figures.length * FIGURE_BYTES);
  }

  /** In the order of the groups' values. */
  async results(work: Work): Promise<GroupResult[]> {
    const sorted = await sortInSteps([...this.#groups.keys()], work);
    return sorted.map((key) => {
      const { values, accumulators } = this.#groups.get(key) as Group;
      return {
        values,
        figures: accumulators.map((accumulator, at) =>
          figureOf(this.#figures[at]?.op as Figure['op'], accumulator),
        ),
      };
    });
  }

  #group(values: readonly (Value | undefined)[], key: string): Group {
    const accumulators = this.#figures.map(() => ({ count: 0, sum: 0, best: undefined }));
    const group = { values, accumulators };
    this.#groups.set(key, group);
    this.#hold(2 * key.length);
    return group;
  }

  #take(accumulator: Accumulator, op: 'sum' | 'avg' | 'min' | 'max', value: Value | undefined): void {
    if (value === undefined || value === null) return;
    if (op === 'sum' || op === 'avg') {
      if (typeof value !== 'number' && !(value instanceof Decimal)) return;
      accumulator.count++;
      accumulator.sum += toDouble(value);
      return;
    }
    const { best } = accumulator;
    if (best !== undefined && compareValues(value, best) * (op === 'min' ? 1 : -1) >= 0) return;
    accumulator.best = value;
    this.#hold(weightOf(value) - (best === undefined ? 0 : weightOf(best)));
  }

  #hold(bytes: number): void {
    this.#bytes += bytes;
    if (this.#groups.size > GROUPS_MAX || this.#bytes > GROUPS_BYTES_MAX)
      throw new AppError('query_too_expensive', {
        detail: `more than ${GROUPS_MAX} groups, or ${GROUPS_BYTES_MAX} bytes of them; narrow the condition`,
      });
  }
}

function weightOf(value: Value): number {
  const type = typeOf(value);
  return type === 'null' || type === 'boolean' ? 8 : encodeExactly(value).length;
}

function figureOf(op: Figure['op'], { count, sum, best }: Accumulator): Value {
  switch (op) {
    case 'count':
      return count;
    case 'sum':
      return sum;
    case 'avg':
      return count === 0 ? null : sum / count;
    case 'min':
    case 'max':
      return best ?? null;
  }
}
