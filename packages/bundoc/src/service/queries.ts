import { setImmediate } from 'node:timers/promises';
import type { Explanation, Figure, OrderBy } from '@bundoc/shared/contract/query';
import { AppError } from '@bundoc/shared/errors';
import type { InstanceLease } from '../project/instance-manager.ts';
import { Aggregation, type GroupResult } from '../query/aggregate.ts';
import { compileWhere, type Predicate } from '../query/evaluate.ts';
import { FirstOf } from '../query/first-of.ts';
import { positionOf } from '../query/key.ts';
import { type Order, orderOf, sortKey } from '../query/order.ts';
import { type IndexPlan, planQuery } from '../query/plan.ts';
import { type Candidate, type Scan, scanCollection } from '../query/scan.ts';
import { ScanBudget, type ScanLimits } from '../query/scan-budget.ts';
import { searchIndex } from '../query/search.ts';
import { valuesIn } from '../query/value.ts';
import type { Where } from '../query/where.ts';
import { fieldsOf } from '../query/where-fields.ts';
import { operatorsOf } from '../query/where-operators.ts';
import type { StoredDocument } from '../storage/port.ts';
import { shortHash } from '../storage/short-hash.ts';
import { openPageCursor } from './page-cursor.ts';

/** What documents a request is about. */
export interface Selection {
  readonly project: string;
  readonly collection: string;
  readonly where: Where;
  /** Ends the work when nobody waits for it any more. */
  readonly signal: AbortSignal;
}

export interface QueryRequest extends Selection {
  readonly orderBy: OrderBy;
  readonly limit: number;
  /** Bytes of documents after which the answer ends, though one is always in it. */
  readonly bytesMax: number;
  readonly cursor: string | undefined;
  /** The members that are wanted, in one spelling only: a cursor belongs to them, too. */
  readonly fields: readonly string[] | undefined;
  /** The condition as it was sent: a cursor belongs to it. */
  readonly whereText: string;
}

export interface Found {
  /** Ids of documents whose stored bytes do not open: nobody knows whether they are among what was asked for. */
  readonly unreadable: readonly string[];
  readonly explanation: Explanation;
}

export interface QueryAnswer extends Found {
  readonly documents: readonly StoredDocument[];
  readonly next: string | undefined;
}

type QueryLease = Pick<InstanceLease, 'store' | 'cursors'> & Disposable;

/** What queries need of the InstanceManager. */
export interface Instances {
  acquire(project: string, mode: 'existing'): Promise<QueryLease | undefined>;
}

/** Finds documents by what is in them. Arguments are validated at the edge. */
export class Queries {
  readonly #instances: Instances;
  readonly #limits: ScanLimits;

  constructor(instances: Instances, limits: ScanLimits) {
    this.#instances = instances;
    this.#limits = limits;
  }

  /**
   * A page of the documents that a condition holds for, in an order.
   *
   * @throws AppError `query_too_expensive`; `invalid_cursor`; `project_not_found`, and those of the store.
   */
  async query(request: QueryRequest): Promise<QueryAnswer> {
    const context = cursorContext(request);
    const after = await this.#openCursor(request, context);
    const order = orderOf(request.orderBy);
    // One more tells whether there are more.
    const run = await this.#begin(request, request.orderBy, request.limit + 1);
    const page = run.isInOrder
      ? await firstInOrder(run, order, request, after)
      : await firstSorted(run, order, request, after);
    const next = page.next === undefined ? undefined : await this.#sealCursor(request, context, page.next);
    return { documents: page.documents, next, ...run.found() };
  }

  /** How many documents a condition holds for. @throws AppError as {@link query} does. */
  async count(selection: Selection): Promise<Found & { readonly count: number }> {
    const run = await this.#begin(selection, []);
    let count = 0;
    for await (const matches of run.matches('')) count += matches.length;
    return { count, ...run.found() };
  }

  /** Figures of the documents that a condition holds for. @throws AppError as {@link query} does. */
  async aggregate(
    selection: Selection,
    groupBy: readonly string[],
    figures: readonly Figure[],
  ): Promise<Found & { readonly groups: readonly GroupResult[] }> {
    const run = await this.#begin(selection, []);
    const aggregation = new Aggregation(groupBy, figures);
    for await (const matches of run.matches('')) for (const { value } of matches) aggregation.add(value);
    return { groups: aggregation.results(), ...run.found() };
  }

  /** Decides how a request finds its documents. */
  async #begin(
    { project, collection, where, signal }: Selection,
    orderBy: OrderBy,
    wanted = Number.POSITIVE_INFINITY,
  ): Promise<Run> {
    const budget = new ScanBudget(this.#limits, adviceFor(where, orderBy));
    const withStore: Scan['withStore'] = async (use) => {
      using lease = await this.#acquire(project);
      return await use(lease.store);
    };
    const order = orderOf(orderBy);
    const plan = await withStore(async ({ indexes }) =>
      planQuery(where, order, indexes?.usable(collection) ?? []),
    );
    const scan = { withStore, collection, budget, unreadable: [], signal };
    return new Run({ scan, holds: compileWhere(where), operators: operatorsOf(where), order, plan, wanted });
  }

  async #acquire(project: string): Promise<QueryLease> {
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return lease;
  }

  /** Where a page begins: the sort key of the last document of the one before. Empty for the first. */
  async #openCursor({ project, cursor }: QueryRequest, context: readonly string[]): Promise<string> {
    if (cursor === undefined) return '';
    using lease = await this.#acquire(project);
    return openPageCursor(lease.cursors, context, cursor).toString('latin1');
  }

  async #sealCursor({ project }: QueryRequest, context: readonly string[], after: string): Promise<string> {
    using lease = await this.#acquire(project);
    return lease.cursors.seal(context, Buffer.from(after, 'latin1'));
  }
}

/** How a request goes through a collection. */
interface Way {
  readonly scan: Scan;
  readonly holds: Predicate;
  readonly operators: number;
  readonly order: Order;
  readonly plan: IndexPlan | undefined;
  /** Documents that are likely to be enough. */
  readonly wanted: number;
}

/** Work after which other requests get their turn; some ten milliseconds. */
const WORK_OF_TURN = 1_000_000;
/** Documents up to this are taken to have a value for so many bytes; those of larger ones are counted. */
const ESTIMATED_BYTES_MAX = 4_096;
const BYTES_OF_VALUE = 8;

/** One request on its way. */
class Run {
  readonly #way: Way;
  #matched = 0;
  #workOfTurn = 0;

  constructor(way: Way) {
    this.#way = way;
  }

  /** Documents come in the order that is asked for. */
  get isInOrder(): boolean {
    const { plan, order } = this.#way;
    return plan?.kind === 'ranges' ? plan.inOrder !== undefined : order.length === 0;
  }

  /** @param after the sort key of the document before the first, when they come in order. */
  async *matches(after: string): AsyncGenerator<readonly Candidate[]> {
    const { scan, plan, wanted } = this.#way;
    const from = this.isInOrder ? after : '';
    // Of those that are sorted, all are looked at.
    const enough = this.isInOrder ? wanted : Number.POSITIVE_INFINITY;
    const candidates =
      plan?.kind === 'ranges'
        ? searchIndex(scan, plan, from, enough)
        : scanCollection(scan, from === '' ? 0 : positionOf(from), enough, plan);
    for await (const some of candidates) {
      const matches: Candidate[] = [];
      for (const candidate of some) {
        const holds = candidate.isSure || this.#holds(candidate);
        if (holds === true || (holds !== false && (await holds))) matches.push(candidate);
      }
      this.#matched += matches.length;
      if (matches.length > 0) yield matches;
    }
  }

  #holds(candidate: Candidate): boolean | Promise<boolean> {
    const { scan, holds, operators } = this.#way;
    const bytes = candidate.document.text.length;
    const values = bytes > ESTIMATED_BYTES_MAX ? valuesIn(candidate.value) : bytes / BYTES_OF_VALUE;
    const work = values * operators;
    scan.budget.spendWork(work);
    this.#workOfTurn += work;
    if (this.#workOfTurn <= WORK_OF_TURN) return holds(candidate.value);
    this.#workOfTurn = work;
    return setImmediate().then(() => {
      scan.signal.throwIfAborted();
      return holds(candidate.value);
    });
  }

  found(): Found {
    const { scan, plan, order } = this.#way;
    const ordered = order.length === 0 ? 'creation' : 'index';
    return {
      unreadable: scan.unreadable,
      explanation: {
        index: plan?.index.name ?? null,
        order: this.isInOrder ? ordered : 'sorted',
        documents_scanned: scan.budget.documents,
        bytes_scanned: scan.budget.bytes,
        documents_matched: this.#matched,
      },
    };
  }
}

interface Page {
  readonly documents: readonly StoredDocument[];
  /** Sort key of the last document, when there are more. */
  readonly next: string | undefined;
}

/** The first documents behind a sort key, of those that come in order. */
async function firstInOrder(
  run: Run,
  order: Order,
  { limit, bytesMax }: QueryRequest,
  after: string,
): Promise<Page> {
  const found: Candidate[] = [];
  let bytes = 0;
  for await (const matches of run.matches(after))
    for (const candidate of matches) {
      bytes += candidate.document.text.length;
      const last = found.at(-1);
      if (last !== undefined && (found.length === limit || bytes > bytesMax))
        return { documents: documentsOf(found), next: sortKey(order, last.value, last.position) };
      found.push(candidate);
    }
  return { documents: documentsOf(found), next: undefined };
}

function documentsOf(found: readonly Candidate[]): readonly StoredDocument[] {
  return found.map(({ document }) => document);
}

/** The same of those that come in any order. */
async function firstSorted(
  run: Run,
  order: Order,
  { limit, bytesMax }: QueryRequest,
  after: string,
): Promise<Page> {
  const first = new FirstOf<{ key: string; bytes: number; document: StoredDocument }>(limit, bytesMax);
  for await (const matches of run.matches(after))
    for (const { document, value, position } of matches) {
      const key = sortKey(order, value, position);
      if (key > after && first.wants(key)) first.add({ key, bytes: document.text.length, document });
    }
  return {
    documents: first.items.map(({ document }) => document),
    next: first.isFull ? first.items.at(-1)?.key : undefined,
  };
}

/** All that decides which documents follow on which: a cursor of one query is no cursor of another. */
function cursorContext({ collection, whereText, orderBy, fields }: QueryRequest): readonly string[] {
  return ['query', collection, shortHash(whereText, JSON.stringify([orderBy, fields ?? null]))];
}

function adviceFor(where: Where, orderBy: OrderBy): string {
  const fields = [...new Set([...fieldsOf(where), ...orderBy.map(({ field }) => field)])].slice(0, 4);
  if (fields.length === 0) return 'narrow the condition';
  return `an index on ${JSON.stringify(fields)} would help`;
}
