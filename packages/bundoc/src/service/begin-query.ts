import type { OrderBy } from '@bundoc/shared/contract/query';
import { compileWhere } from '../queries/evaluate.ts';
import { QueryExecution } from '../queries/execution.ts';
import { orderOf } from '../queries/order.ts';
import { planInOrder, planQuery } from '../queries/plan.ts';
import type { Scan } from '../queries/scan.ts';
import { ScanBudget, type ScanLimits } from '../queries/scan-budget.ts';
import { fieldsOf, operatorsOf, type Where } from '../queries/where.ts';
import type { Path } from '../values/path.ts';
import type { Work } from '../work/work.ts';
import type { HeldSnapshot } from './held-snapshot.ts';

export interface BegunQuery {
  readonly state: HeldSnapshot;
  readonly where: Where;
  /** JSON of the condition; empty for none. */
  readonly whereText: string;
  readonly work: Work;
  readonly limits: ScanLimits;
  readonly orderBy: OrderBy;
  /** Number of documents that are likely to be enough; all by default. */
  readonly wanted?: number;
  /** Paths whose values are wanted for each match. */
  readonly paths?: readonly Path[];
  /** Ends the query early, in the order of creation: see {@link Scan.endsAt}. */
  readonly endsAt?: (budget: ScanBudget) => Scan['endsAt'];
}

/** Chooses how a request finds its documents. */
export async function beginQuery(asked: BegunQuery): Promise<QueryExecution> {
  const { state, where, whereText, work, limits, orderBy, paths = [] } = asked;
  const { wanted = Number.POSITIVE_INFINITY } = asked;
  const budget = new ScanBudget(limits, adviceFor(where, orderBy));
  const withSnapshot: Scan['withSnapshot'] = async (use) => use(await state.get());
  const order = orderOf(orderBy);
  const endsAt = asked.endsAt?.(budget);
  // A query that ends early continues by a position, so it needs the order.
  const plan = endsAt === undefined ? planQuery : planInOrder;
  const indexPlan = await work.outside(() =>
    withSnapshot(async (snapshot) => plan(where, order, await snapshot.usable())),
  );
  const releaseStore = () => state.releaseStore();
  const snapshotBytes = () => state.keptBytes;
  const scan = { withSnapshot, snapshotBytes, releaseStore, budget, unreadable: [], work, endsAt };
  const condition = { holds: compileWhere(where), operators: operatorsOf(where), whereText };
  return new QueryExecution({ scan, ...condition, orderBy, order, paths, indexPlan, wanted });
}

function adviceFor(where: Where, orderBy: OrderBy): string {
  const fields = [...new Set([...fieldsOf(where), ...orderBy.map(({ field }) => field)])].slice(0, 4);
  if (fields.length === 0) return 'narrow the condition; the collection itself has its number of documents';
  return `an index on ${JSON.stringify(fields)} would help, once it is ready`;
}
