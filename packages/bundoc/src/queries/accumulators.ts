import { AppError } from '@bundoc/shared/contract/app-error';
import type { Figure } from '@bundoc/shared/contract/query';
import { compareValues } from '../values/compare.ts';
import { ExactSum, SUM_PLACES_MAX } from '../values/exact-sum.ts';
import { encodeExactly } from '../values/key.ts';
import { isNumber, typeOf, type Value } from '../values/value.ts';
import type { Work } from '../work/work.ts';
import { Tally } from './tally.ts';

/** What one or several figures keep of one group. */
export interface Accumulator {
  /** Takes the first value at the figure's path in a document. @throws AppError `query_too_expensive`. */
  add(value: Value | undefined): void;
  /** Memory of what it keeps, approximately. */
  readonly bytes: number;
  /** Yields between the steps of a long computation. */
  result(figure: Figure, work: Work): Value | Promise<Value>;
}

/** Figures with equal names share an accumulator. */
export function accumulatorName(figure: Figure): string {
  switch (figure.op) {
    case 'count':
      return figure.op;
    case 'distinct':
    case 'countDistinct':
    case 'percentile':
      return `tally ${figure.field}`;
    default:
      return `${figure.op} ${figure.field}`;
  }
}

/** The empty state of a figure. */
export function accumulatorOf(figure: Figure): Accumulator {
  switch (figure.op) {
    case 'count':
      return new Count();
    case 'sum':
    case 'avg':
      return new Sum(figure.op === 'avg', figure.field);
    case 'min':
      return new Extreme(1);
    case 'max':
      return new Extreme(-1);
    case 'distinct':
    case 'countDistinct':
    case 'percentile':
      return new Tally();
  }
}

class Count implements Accumulator {
  readonly bytes = 0;
  #count = 0;

  add(): void {
    this.#count++;
  }

  result(): Value {
    return this.#count;
  }
}

/** The sum or the average of those values that are numbers. */
class Sum implements Accumulator {
  readonly #sum = new ExactSum();
  readonly #isAverage: boolean;
  readonly #field: string;

  constructor(isAverage: boolean, field: string) {
    this.#isAverage = isAverage;
    this.#field = field;
  }

  add(value: Value | undefined): void {
    if (value === undefined || !isNumber(value) || this.#sum.add(value)) return;
    throw new AppError('query_too_expensive', {
      detail: `a number at ${JSON.stringify(this.#field)} has digits more than ${SUM_PLACES_MAX} places from the decimal point, which sum and avg do not take; exclude it by the condition`,
    });
  }

  get bytes(): number {
    return this.#sum.bytes;
  }

  result(): Value {
    return this.#isAverage ? (this.#sum.average ?? null) : this.#sum.total;
  }
}

/** The first or the last value in the order of all values, without null. */
class Extreme implements Accumulator {
  readonly #sign: 1 | -1;
  #best: Value | undefined;
  bytes = 0;

  constructor(sign: 1 | -1) {
    this.#sign = sign;
  }

  add(value: Value | undefined): void {
    if (value === undefined || value === null) return;
    if (this.#best !== undefined && compareValues(value, this.#best) * this.#sign >= 0) return;
    this.#best = value;
    this.bytes = weightOf(value);
  }

  result(): Value {
    return this.#best ?? null;
  }
}

/** Memory of a figure, approximately. */
export function weightOf(value: Value): number {
  const type = typeOf(value);
  return type === 'null' || type === 'boolean' ? 8 : encodeExactly(value).length;
}
