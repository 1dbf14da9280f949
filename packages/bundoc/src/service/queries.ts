import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Explanation, Figure, OrderBy } from '@bundoc/shared/contract/query';
import { freeMemory } from '@bundoc/shared/runtime/free-memory';
import type { StoredDocument } from '../engine/port.ts';
import { shortHash } from '../engine/short-hash.ts';
import type { LargeInput } from '../large-jobs.ts';
import type { InstanceLease } from '../projects/instance-manager.ts';
import { Aggregation, type GroupResult } from '../queries/aggregate.ts';
import { compileWhere, type Predicate } from '../queries/evaluate.ts';
import { FirstOf } from '../queries/first-of.ts';
import { type Order, orderOf } from '../queries/order.ts';
import { type IndexPlan, planQuery } from '../queries/plan.ts';
import { type Candidate, type Scan, scanCollection } from '../queries/scan.ts';
import { ScanBudget, type ScanLimits } from '../queries/scan-budget.ts';
import { searchIndex } from '../queries/search.ts';
import type { Where } from '../queries/where.ts';
import { fieldsOf } from '../queries/where-fields.ts';
import { operatorsOf } from '../queries/where-operators.ts';
import { positionOf } from '../values/key.ts';
import type { Path } from '../values/path.ts';
import { weightOf } from '../values/value.ts';
import { LARGE_BYTES } from '../work/large-thread.ts';
import type { Work } from '../work/scheduler.ts';
import { openPageCursor } from './page-cursor.ts';

/** What documents a request is about. */
export interface Selection {
  readonly project: string;
  readonly collection: string;
  readonly where: Where;
  /** JSON of the condition: a cursor belongs to it. Empty for none. */
  readonly whereText: string;
  /** What the request does is part of it, and so is what it holds until it is answered. */
  readonly work: Work;
}

export interface QueryRequest extends Selection {
  readonly orderBy: OrderBy;
  readonly limit: number;
  /** Bytes of documents after which the answer ends, though one is always in it. */
  readonly bytesMax: number;
  readonly cursor: string | undefined;
  /** The members that are wanted, in one spelling only: a cursor belongs to them, too. */
  readonly fields: readonly string[] | undefined;
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
    await run.each('', () => false);
    return { count: run.matched, ...run.found() };
  }

  /** Figures of the documents that a condition holds for. @throws AppError as {@link query} does. */
  async aggregate(
    selection: Selection,
    groupBy: readonly string[],
    figures: readonly Figure[],
  ): Promise<Found & { readonly groups: readonly GroupResult[] }> {
    const aggregation = new Aggregation(groupBy, figures);
    const { paths } = aggregation;
    const run = await this.#begin(selection, [], Number.POSITIVE_INFINITY, paths);
    await run.each('', (match) => {
      aggregation.add(match.valuesAt(paths));
      run.keeps(aggregation.bytes);
      return false;
    });
    return { groups: await aggregation.results(selection.work), ...run.found() };
  }

  /** Decides how a request finds its documents. */
  async #begin(
    { project, collection, where, whereText, work }: Selection,
    orderBy: OrderBy,
    wanted = Number.POSITIVE_INFINITY,
    paths: readonly Path[] = [],
  ): Promise<Run> {
    const budget = new ScanBudget(this.#limits, adviceFor(where, orderBy));
    const withStore: Scan['withStore'] = async (use) => {
      using lease = await this.#acquire(project);
      return await use(lease.store);
    };
    const order = orderOf(orderBy);
    const plan = await work.outside(() =>
      withStore(async ({ indexes }) => planQuery(where, order, indexes?.usable(collection) ?? [])),
    );
    const scan = { withStore, collection, budget, unreadable: [], work };
    const condition = { holds: compileWhere(where), operators: operatorsOf(where), whereText };
    return new Run({ scan, ...condition, orderBy, order, paths, plan, wanted });
  }

  async #acquire(project: string): Promise<QueryLease> {
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return lease;
  }

  /** Where a page begins: the sort key of the last document of the one before. Empty for the first. */
  async #openCursor({ project, cursor, work }: QueryRequest, context: readonly string[]): Promise<string> {
    if (cursor === undefined) return '';
    work.leave();
    using lease = await this.#acquire(project);
    return openPageCursor(lease.cursors, context, cursor).toString('latin1');
  }

  async #sealCursor(
    { project, work }: QueryRequest,
    context: readonly string[],
    after: string,
  ): Promise<string> {
    work.leave();
    using lease = await this.#acquire(project);
    return lease.cursors.seal(context, Buffer.from(after, 'latin1'));
  }
}

/** How a request goes through a collection. */
interface Way {
  readonly scan: Scan;
  readonly holds: Predicate;
  readonly operators: number;
  readonly whereText: string;
  readonly orderBy: OrderBy;
  readonly order: Order;
  /** Paths whose values are wanted of each document that is found. */
  readonly paths: readonly Path[];
  readonly plan: IndexPlan | undefined;
  /** Documents that are likely to be enough. */
  readonly wanted: number;
}

/** Documents up to this are taken to have a value for so many bytes; those of larger ones are counted. */
const ESTIMATED_BYTES_MAX = 4_096;
const BYTES_OF_VALUE = 8;
/** Memory of a parsed document, for a byte of its text. */
const PARSED_TO_TEXT = 8;
/** Comparisons of one document that are made on the thread of the event loop at most, which takes some milliseconds. */
const WORK_AT_ONCE_MAX = 50_000;
/** Bytes of a document from which on it is read in one step, and looked at in the next. */
const STEP_BYTES = 65_536;
/** Comparisons that the key of a value takes, for each value in it. */
const WORK_OF_KEY = 4;
/** Memory of a document that was found by an index, so that it is not found twice. */
const SEEN_BYTES = 128;

/** One request on its way. */
class Run {
  readonly #way: Way;
  #matched = 0;
  #keptBytes = 0;
  #pageBytes = 0;

  constructor(way: Way) {
    this.#way = way;
  }

  /** Documents that the condition holds for, so far. */
  get matched(): number {
    return this.#matched;
  }

  /** Documents come in the order that is asked for. */
  get isInOrder(): boolean {
    const { plan, order } = this.#way;
    return plan?.kind === 'ranges' ? plan.inOrder !== undefined : order.length === 0;
  }

  /**
   * Takes each document that the condition holds for, until `take` returns true. Others are served between any two.
   *
   * @param after the sort key of the document before the first, when they come in order.
   */
  async each(after: string, take: (match: Candidate) => boolean): Promise<void> {
    const { scan, plan, wanted } = this.#way;
    const from = this.isInOrder ? after : '';
    // Of those that are sorted, all are looked at.
    const enough = this.isInOrder ? wanted : Number.POSITIVE_INFINITY;
    const candidates =
      plan?.kind === 'ranges'
        ? searchIndex(scan, plan, from, enough)
        : scanCollection(scan, from === '' ? 0 : positionOf(from), enough, plan);
    for await (const some of candidates) {
      this.#holdPage(some);
      for (const candidate of some) {
        const turn = scan.work.pause();
        if (turn !== undefined) await turn;
        const holds = this.#holds(candidate);
        if (holds === true || (holds !== false && (await holds))) {
          this.#matched++;
          if (take(candidate)) return;
        }
        candidate.forget();
      }
      this.#pageBytes = 0;
    }
  }

  /** Bytes of memory that the request keeps of what it has found, all together. @throws AppError `rate_limited`, `overloaded`. */
  keeps(bytes: number): void {
    this.#keptBytes = bytes;
    this.#hold();
  }

  #holdPage(page: readonly Candidate[]): void {
    let [bytes, largest] = [0, 0];
    for (const { document } of page) {
      bytes += document.text.length;
      largest = Math.max(largest, document.text.length);
    }
    this.#pageBytes = bytes + PARSED_TO_TEXT * Math.min(largest, LARGE_BYTES);
    this.#hold();
  }

  #hold(): void {
    const { scan, plan } = this.#way;
    const seen = plan?.kind === 'ranges' && plan.inOrder === undefined ? scan.budget.documents : 0;
    scan.work.hold(this.#pageBytes + this.#keptBytes + seen * SEEN_BYTES);
  }

  #holds(candidate: Candidate): boolean | Promise<boolean> {
    const { order, paths } = this.#way;
    const { document, isSure } = candidate;
    const keys = order.length + paths.length;
    if (isSure && keys === 0) return true;
    const bytes = document.text.length;
    if (bytes > LARGE_BYTES) return this.#holdsElsewhere(candidate);
    if (bytes > STEP_BYTES) return this.#holdsInSteps(candidate);
    const values = bytes > ESTIMATED_BYTES_MAX ? weightOf(candidate.value) : bytes / BYTES_OF_VALUE;
    return this.#holdsOf(candidate, values);
  }

  async #holdsInSteps(candidate: Candidate): Promise<boolean> {
    const values = weightOf(candidate.value);
    await this.#way.scan.work.pause();
    return await this.#holdsOf(candidate, values);
  }

  /** @param values in the document, about. */
  #holdsOf(candidate: Candidate, values: number): boolean | Promise<boolean> {
    const { scan, holds, operators, order, paths } = this.#way;
    const keys = order.length + paths.length;
    if (values * (operators + keys * WORK_OF_KEY) > WORK_AT_ONCE_MAX) return this.#holdsElsewhere(candidate);
    if (candidate.isSure) return true;
    scan.budget.spendWork(values * operators);
    return holds(candidate.value);
  }

  /** A large document, or one that takes long, is looked at in another thread. */
  async #holdsElsewhere(candidate: Candidate): Promise<boolean> {
    const { scan, whereText, orderBy, paths } = this.#way;
    const { document, position, isSure } = candidate;
    candidate.forgetValue();
    const input: LargeInput<'evaluate'> = {
      ...{ text: document.text, position, orderBy, budget: scan.budget.ofDocument },
      where: isSure || whereText === '' ? undefined : whereText,
      fields: paths.map((path) => path.join('.')),
    };
    const evaluated = await scan.work.elsewhere('evaluate', input).catch((error: unknown) => {
      // It took too long: as much as the condition asks for.
      throw hasCode(error, 'payload_too_large') ? scan.budget.refusal() : error;
    });
    scan.budget.spendWork(evaluated.work);
    candidate.wasEvaluated(evaluated);
    return evaluated.holds;
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

/** The same of those that come in any order. */
async function firstSorted(
  run: Run,
  order: Order,
  { limit, bytesMax }: QueryRequest,
  after: string,
): Promise<Page> {
  const first = new FirstOf<{ key: string; bytes: number; document: StoredDocument }>(limit, bytesMax);
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

/** All that decides which documents follow on which: a cursor of one query is no cursor of another. */
function cursorContext({ collection, whereText, orderBy, fields }: QueryRequest): readonly string[] {
  return ['query', collection, shortHash(whereText, JSON.stringify([orderBy, fields ?? null]))];
}

function adviceFor(where: Where, orderBy: OrderBy): string {
  const fields = [...new Set([...fieldsOf(where), ...orderBy.map(({ field }) => field)])].slice(0, 4);
  if (fields.length === 0) return 'narrow the condition';
  return `an index on ${JSON.stringify(fields)} would help`;
}
