import { defined } from '@bundoc/shared/contract/defined';
import type { Figure, OrderBy } from '@bundoc/shared/contract/query';
import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { Position, StoredDocument } from '../engine/port/port.ts';
import { shortHash } from '../engine/port/short-hash.ts';
import { ofOneState } from '../engine/port/snapshot-port.ts';
import { HeldLease } from '../projects/held-lease.ts';
import type { InstanceLease } from '../projects/project-instance.ts';
import { Aggregation, type GroupResult } from '../queries/aggregate.ts';
import type { ExecutionStats, QueryExecution } from '../queries/execution.ts';
import type { Having } from '../queries/having.ts';
import { type Order, orderOf } from '../queries/order.ts';
import type { Candidate } from '../queries/scan.ts';
import type { ScanLimits } from '../queries/scan-budget.ts';
import { TopK } from '../queries/top-k.ts';
import type { Where } from '../queries/where.ts';
import type { Path } from '../values/path.ts';
import type { Work } from '../work/work.ts';
import { beginQuery } from './begin-query.ts';
import { HeldSnapshot } from './held-snapshot.ts';
import { openPageCursor } from './page-cursor.ts';

/** The documents that a request selects. */
export interface Selection {
  readonly project: string;
  readonly collection: string;
  readonly where: Where;
  /** JSON of the condition, which cursors are bound to; empty for none. */
  readonly whereText: string;
  /** The work of the request, which holds its memory until the answer. */
  readonly work: Work;
  /** The state to show, which an earlier answer had; the present one by default. */
  readonly asOf?: Position | undefined;
}

export interface QueryRequest extends Selection {
  readonly orderBy: OrderBy;
  readonly limit: number;
  /** Bytes of documents that end the answer, which always has at least one. */
  readonly bytesMax: number;
  readonly cursor: string | undefined;
  /** The members to return, in canonical spelling; cursors are bound to them. */
  readonly fields: readonly string[] | undefined;
}

/** What every answer says of itself. */
export interface AnswerStats extends ExecutionStats {
  /** The position of the last commit that it shows. */
  readonly asOf: Position;
}

export interface QueryAnswer extends AnswerStats {
  readonly documents: readonly StoredDocument[];
  readonly next: string | undefined;
}

type QueryLease = Pick<InstanceLease, 'store' | 'cursors' | 'isUsable'> & Disposable;

/** The part of the InstanceManager that queries need. */
export interface Instances {
  acquire(project: string, mode: 'existing'): Promise<QueryLease | undefined>;
}

/** Finds documents by their content. Arguments are validated at the edge. */
export class Queries {
  readonly #instances: Instances;
  readonly #limits: ScanLimits;

  constructor(instances: Instances, limits: ScanLimits) {
    this.#instances = instances;
    this.#limits = limits;
  }

  /**
   * A page of the documents that match a condition, in an order.
   *
   * @throws AppError `query_too_expensive`; `invalid_cursor`; `project_not_found`, `snapshot_too_old`, and
   *   those of the store.
   */
  async query(request: QueryRequest): Promise<QueryAnswer> {
    const order = orderOf(request.orderBy);
    const context = cursorContext(request);
    return await this.#answer(request, async (state, lease) => {
      const after = await openCursor(lease, request, context);
      // One more document shows whether there are more.
      const run = await this.#begin(state, request, request.orderBy, request.limit + 1);
      const page = run.isInOrder
        ? await firstInOrder(run, order, request, after)
        : await firstSorted(run, order, request, after);
      if (page.next !== undefined) state.retain();
      const next = page.next === undefined ? undefined : await sealCursor(lease, request, context, page.next);
      return { documents: page.documents, next, ...statsOf(run, state) };
    });
  }

  /** The number of matches. @throws AppError as {@link query} does. */
  async count(selection: Selection): Promise<AnswerStats & { readonly count: number }> {
    return await this.#answer(selection, async (state) => {
      const run = await this.#begin(state, selection, []);
      const count = await run.count();
      return { count, ...statsOf(run, state) };
    });
  }

  /** Figures of the matches, of those groups that `having` wants. @throws AppError as {@link query} does. */
  async aggregate(
    selection: Selection,
    groupBy: readonly string[],
    figures: readonly Figure[],
    having?: Having,
  ): Promise<AnswerStats & { readonly groups: readonly GroupResult[] }> {
    return await this.#answer(selection, async (state) => {
      const aggregation = new Aggregation(groupBy, figures);
      const { paths } = aggregation;
      const run = await this.#begin(state, selection, [], Number.POSITIVE_INFINITY, paths);
      let groups: readonly GroupResult[];
      if (groupBy.length === 0 && figures.every(({ op }) => op === 'count')) {
        const count = await run.count();
        groups = [{ values: [], figures: figures.map(() => count) }];
      } else {
        await run.each('', (match) => {
          aggregation.add(match.valuesAt(paths));
          run.keeps(aggregation.bytes);
          return false;
        });
        groups = await aggregation.results(selection.work);
        run.keeps(aggregation.bytes);
      }
      if (having !== undefined) groups = await chosen(groups, having, run, selection.work);
      return { groups, ...statsOf(run, state) };
    });
  }

  /** Makes an answer whose steps all have one lease and show one state. */
  async #answer<T>(
    { project, collection, asOf }: Selection,
    make: (state: HeldSnapshot, lease: HeldLease<QueryLease>) => Promise<T>,
  ): Promise<T> {
    using lease = new HeldLease(() => this.#instances.acquire(project, 'existing'));
    using state = new HeldSnapshot(lease, collection, { asOf });
    return await ofOneState(() => make(state, lease));
  }

  #begin(
    state: HeldSnapshot,
    { where, whereText, work }: Selection,
    orderBy: OrderBy,
    wanted?: number,
    paths: readonly Path[] = [],
  ): Promise<QueryExecution> {
    const limits = this.#limits;
    return beginQuery({ state, where, whereText, work, limits, orderBy, paths, ...defined({ wanted }) });
  }
}

/** The groups that a condition holds for. Yields between any two. */
async function chosen(
  groups: readonly GroupResult[],
  having: Having,
  run: QueryExecution,
  work: Work,
): Promise<readonly GroupResult[]> {
  const wanted: GroupResult[] = [];
  for (const group of groups) {
    const turn = work.pause();
    if (turn !== undefined) await turn;
    if (having.holds(group, run)) wanted.push(group);
  }
  return wanted;
}

function statsOf(run: QueryExecution, { asOf }: HeldSnapshot): AnswerStats {
  return { ...run.stats, asOf };
}

/** The start of a page: the sort key of the last document of the previous one. Empty for the first. */
async function openCursor(
  lease: HeldLease<QueryLease>,
  { cursor, work }: QueryRequest,
  context: readonly string[],
): Promise<string> {
  if (cursor === undefined) return '';
  work.leave();
  return openPageCursor((await lease.get()).cursors, context, cursor).toString('latin1');
}

async function sealCursor(
  lease: HeldLease<QueryLease>,
  { work }: QueryRequest,
  context: readonly string[],
  after: string,
): Promise<string> {
  work.leave();
  return (await lease.get()).cursors.seal(context, Buffer.from(after, 'latin1'));
}

interface Page {
  readonly documents: readonly StoredDocument[];
  /** Sort key of the last document, when there are more. */
  readonly next: string | undefined;
}

/** The first documents after a sort key, when they arrive in order. */
async function firstInOrder(
  run: QueryExecution,
  order: Order,
  { limit, bytesMax }: QueryRequest,
  after: string,
): Promise<Page> {
  const found: Candidate[] = [];
  let bytes = 0;
  let next: string | undefined;
  await run.each(after, (candidate) => {
    bytes += candidate.document.text.length;
    const last = found.at(-1);
    if (last !== undefined && (found.length === limit || bytes > bytesMax)) {
      next = last.sortKey(order);
      return true;
    }
    candidate.keep();
    found.push(candidate);
    run.keeps(bytes);
    return false;
  });
  return { documents: documentsOf(found), next };
}

function documentsOf(found: readonly Candidate[]): readonly StoredDocument[] {
  return found.map(({ document }) => document);
}

/** The same when they arrive in any order. */
async function firstSorted(
  run: QueryExecution,
  order: Order,
  { limit, bytesMax }: QueryRequest,
  after: string,
): Promise<Page> {
  const first = new TopK<{ key: string; bytes: number; document: StoredDocument }>(limit, bytesMax);
  await run.each(after, (match) => {
    const { document } = match;
    const key = match.sortKey(order);
    if (key > after && first.wants(key)) {
      const dropped = first.add({ key, bytes: document.text.length, document: match.keep() });
      for (const { document } of dropped) freeMemory(document.text);
      run.keeps(first.bytes + first.items.length * 2 * key.length);
    }
    return false;
  });
  return {
    documents: first.items.map(({ document }) => document),
    next: first.isFull ? first.items.at(-1)?.key : undefined,
  };
}

/** Everything that determines the sequence of documents: a cursor is only valid for its own query. */
function cursorContext({ collection, whereText, orderBy, fields }: QueryRequest): readonly string[] {
  return ['query', collection, shortHash(whereText, JSON.stringify([orderBy, fields ?? null]))];
}
