import type { Explanation, Figure, OrderBy } from '@bundoc/shared/contract/query';
import { AppError } from '@bundoc/shared/errors';
import type { InstanceLease } from '../project/instance-manager.ts';
import { Aggregation, type GroupResult } from '../query/aggregate.ts';
import { compileWhere, type Predicate } from '../query/evaluate.ts';
import { FirstOf } from '../query/first-of.ts';
import { orderOf, sortKey } from '../query/order.ts';
import { type Candidate, type Scan, scanCollection } from '../query/scan.ts';
import { ScanBudget, type ScanLimits } from '../query/scan-budget.ts';
import type { Where } from '../query/where.ts';
import { fieldsOf } from '../query/where-fields.ts';
import type { ListedDocument } from '../storage/port.ts';
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
  /** The condition as it was sent: a cursor belongs to it. */
  readonly whereText: string;
}

export interface Found {
  /** Ids of documents whose stored bytes do not open: nobody knows whether they are among what was asked for. */
  readonly unreadable: readonly string[];
  readonly explanation: Explanation;
}

export interface QueryAnswer extends Found {
  readonly documents: readonly ListedDocument[];
  readonly next: string | undefined;
}

type QueryLease = Omit<InstanceLease, 'file'>;

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
    const run = this.#begin(request, request.orderBy);
    const page =
      request.orderBy.length === 0
        ? await inCreationOrder(run, request, after)
        : await inOrder(run, request, after);
    const next = page.next === undefined ? undefined : await this.#sealCursor(request, context, page.next);
    return {
      documents: page.documents,
      next,
      ...run.found(request.orderBy.length === 0 ? 'creation' : 'sorted'),
    };
  }

  /** How many documents a condition holds for. @throws AppError as {@link query} does. */
  async count(selection: Selection): Promise<Found & { readonly count: number }> {
    const run = this.#begin(selection, []);
    let count = 0;
    for await (const _match of run.matches(0)) count++;
    return { count, ...run.found('creation') };
  }

  /** Figures of the documents that a condition holds for. @throws AppError as {@link query} does. */
  async aggregate(
    selection: Selection,
    groupBy: readonly string[],
    figures: readonly Figure[],
  ): Promise<Found & { readonly groups: readonly GroupResult[] }> {
    const run = this.#begin(selection, []);
    const aggregation = new Aggregation(groupBy, figures);
    for await (const { value } of run.matches(0)) aggregation.add(value);
    return { groups: aggregation.results(), ...run.found('creation') };
  }

  #begin({ project, collection, where, signal }: Selection, orderBy: OrderBy): Run {
    const budget = new ScanBudget(this.#limits, adviceFor(where, orderBy));
    const withStore: Scan['withStore'] = async (use) => {
      using lease = await this.#acquire(project);
      return await use(lease.store);
    };
    return new Run({ withStore, collection, budget, unreadable: [], signal }, compileWhere(where));
  }

  async #acquire(project: string): Promise<QueryLease> {
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    return lease;
  }

  /** Where a page begins: the sort key of the last document of the one before. Empty for the first. */
  async #openCursor({ project, cursor }: QueryRequest, context: readonly string[]): Promise<Buffer> {
    if (cursor === undefined) return Buffer.alloc(0);
    using lease = await this.#acquire(project);
    return openPageCursor(lease.cursors, context, cursor);
  }

  async #sealCursor({ project }: QueryRequest, context: readonly string[], after: string): Promise<string> {
    using lease = await this.#acquire(project);
    return lease.cursors.seal(context, Buffer.from(after, 'latin1'));
  }
}

/** One request's way through a collection. */
class Run {
  readonly #scan: Scan;
  readonly #holds: Predicate;
  #matched = 0;

  constructor(scan: Scan, holds: Predicate) {
    this.#scan = scan;
    this.#holds = holds;
  }

  async *matches(after: number): AsyncGenerator<Candidate> {
    for await (const candidate of scanCollection(this.#scan, after)) {
      if (!this.#holds(candidate.value)) continue;
      this.#matched++;
      yield candidate;
    }
  }

  found(order: Explanation['order']): Found {
    const { unreadable, budget } = this.#scan;
    return {
      unreadable,
      explanation: {
        index: null,
        order,
        documents_scanned: budget.documents,
        bytes_scanned: budget.bytes,
        documents_matched: this.#matched,
      },
    };
  }
}

interface Page {
  readonly documents: readonly ListedDocument[];
  /** Sort key of the last document, when there are more. */
  readonly next: string | undefined;
}

async function inCreationOrder(run: Run, { limit, bytesMax }: QueryRequest, after: Buffer): Promise<Page> {
  const documents: ListedDocument[] = [];
  let bytes = 0;
  const from = after.length === 0 ? 0 : after.readUIntBE(0, after.length);
  for await (const { document, value } of run.matches(from)) {
    const last = documents.at(-1);
    bytes += document.text.length;
    if (last !== undefined && (documents.length === limit || bytes > bytesMax))
      return { documents, next: sortKey([], value, last.position) };
    documents.push(document);
  }
  return { documents, next: undefined };
}

async function inOrder(run: Run, request: QueryRequest, after: Buffer): Promise<Page> {
  const order = orderOf(request.orderBy);
  const afterKey = after.toString('latin1');
  const first = new FirstOf<{ key: string; bytes: number; document: ListedDocument }>(
    request.limit,
    request.bytesMax,
  );
  for await (const { document, value } of run.matches(0)) {
    const key = sortKey(order, value, document.position);
    if (key > afterKey && first.wants(key)) first.add({ key, bytes: document.text.length, document });
  }
  return {
    documents: first.items.map(({ document }) => document),
    next: first.isFull ? first.items.at(-1)?.key : undefined,
  };
}

/** All that decides which documents follow on which: a cursor of one query is no cursor of another. */
function cursorContext({ collection, whereText, orderBy }: QueryRequest): readonly string[] {
  return ['query', collection, shortHash(whereText, JSON.stringify(orderBy))];
}

function adviceFor(where: Where, orderBy: OrderBy): string {
  const fields = [...new Set([...fieldsOf(where), ...orderBy.map(({ field }) => field)])].slice(0, 4);
  if (fields.length === 0) return 'narrow the condition';
  return `an index on ${JSON.stringify(fields)} would help`;
}
