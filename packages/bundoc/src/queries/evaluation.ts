import type { OrderBy } from '@bundoc/shared/contract/query';
import { pathOf, valueAt } from '../values/path.ts';
import { readValue, weightOf } from '../values/value.ts';
import { writeValue } from '../values/write-value.ts';
import { defineJobs } from '../work/job.ts';
import { bufferOf } from '../work/large-bytes.ts';
import { compileWhere, type Predicate } from './evaluate.ts';
import { type Order, orderOf, sortKey } from './order.ts';
import { type DocumentBudget, refuseWork } from './scan-budget.ts';
import { operatorsOf, whereSchema } from './where.ts';

/** The evaluation of a large document in a query. */
interface EvaluationInput {
  readonly text: Uint8Array;
  /** Position of its creation. */
  readonly position: number;
  /** The JSON of the condition; undefined when it is known to hold. */
  readonly where: string | undefined;
  readonly orderBy: OrderBy;
  /** Paths whose values are wanted. */
  readonly fields: readonly string[];
  readonly budget: DocumentBudget;
}

export interface Evaluated {
  readonly holds: boolean;
  readonly work: number;
  /** Its sort key, when the condition holds. */
  readonly key: string;
  /** JSON of the first value at each path. */
  readonly values: readonly (string | undefined)[];
}

export const JOBS = defineJobs(import.meta.url, {
  evaluate(input: EvaluationInput): Evaluated {
    const { holds, operators, order } = conditionOf(input);
    const value = readValue(bufferOf(input.text).toString());
    const work = weightOf(value) * operators;
    const { documentWorkMax, workMax, advice } = input.budget;
    if (work > documentWorkMax) throw refuseWork(documentWorkMax, workMax, advice);
    if (!holds(value)) return { holds: false, work, key: '', values: [] };
    const values = input.fields.map((field) => {
      const found = valueAt(value, pathOf(field));
      return found === undefined ? undefined : writeValue(found);
    });
    return { holds: true, work, key: sortKey(order, value, input.position), values };
  },
});

interface Condition {
  readonly where: string | undefined;
  readonly orderBy: string;
  readonly holds: Predicate;
  readonly operators: number;
  readonly order: Order;
}

/** The last used condition. */
let latest: Condition | undefined;

function conditionOf({ where, orderBy }: EvaluationInput): Condition {
  const orderText = JSON.stringify(orderBy);
  if (latest?.where === where && latest?.orderBy === orderText) return latest;
  const condition = where === undefined ? undefined : whereSchema.parse(readValue(where));
  latest = {
    where,
    orderBy: orderText,
    order: orderOf(orderBy),
    holds: condition === undefined ? () => true : compileWhere(condition),
    operators: condition === undefined ? 0 : operatorsOf(condition),
  };
  return latest;
}
