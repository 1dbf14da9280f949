import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Explanation, OrderBy } from '@bundoc/shared/contract/query';
import { positionOf } from '../values/key.ts';
import type { Path } from '../values/path.ts';
import { isHeavy, weightOf } from '../values/value.ts';
import { LARGE_BYTES } from '../work/large-bytes.ts';
import type { Predicate } from './evaluate.ts';
import { JOBS } from './evaluation.ts';
import type { Order } from './order.ts';
import type { IndexPlan } from './plan.ts';
import type { Scan } from './scan.ts';
import { type Candidate, scanCollection } from './scan.ts';
import { countEntries, searchIndex } from './search.ts';

export interface ExecutionStats {
  /** Ids of undecryptable documents; whether they match is unknown. */
  readonly unreadable: readonly string[];
  readonly explanation: Explanation;
}

/** How a request visits a collection. */
export interface QueryPlan {
  readonly scan: Scan;
  readonly holds: Predicate;
  readonly operators: number;
  readonly whereText: string;
  readonly orderBy: OrderBy;
  readonly order: Order;
  /** Paths whose values are wanted for each match. */
  readonly paths: readonly Path[];
  readonly indexPlan: IndexPlan | undefined;
  /** Number of documents that are likely to be enough. */
  readonly wanted: number;
}

/**
 * Up to this size, the number of values is estimated from the length; in larger documents they are counted.
 */
const ESTIMATED_BYTES_MAX = 4_096;
const BYTES_OF_VALUE = 8;
/** Memory of a parsed document in relation to its text. */
const PARSED_TO_TEXT = 8;
/** Maximum comparisons for one document on the event loop's thread, which take some milliseconds. */
export const WORK_AT_ONCE_MAX = 50_000;
/** A larger document is parsed in one step, and evaluated in the next. */
const STEP_BYTES = 65_536;
/** Comparisons that computing a sort key costs, for each value in it. */
const WORK_OF_KEY = 4;
/** Memory to remember a document that an index has found, so that it is not found twice. */
const SEEN_BYTES = 128;

/** The values of a document up to which it is evaluated on the event loop's thread. */
function weightAtOnceMax({ operators, order, paths }: QueryPlan): number {
  return WORK_AT_ONCE_MAX / (operators + (order.length + paths.length) * WORK_OF_KEY);
}

/** The execution of one request. */
export class QueryExecution {
  readonly #plan: QueryPlan;
  #matched = 0;
  #keptBytes = 0;
  #pageBytes = 0;

  constructor(plan: QueryPlan) {
    this.#plan = plan;
  }

  /** Whether documents arrive in the requested order. */
  get isInOrder(): boolean {
    const { indexPlan, order } = this.#plan;
    return indexPlan === undefined ? order.length === 0 : indexPlan.inOrder !== undefined;
  }

  /**
   * Takes each match until `take` returns true. Yields between any two.
   *
   * @param after the sort key of the document before the first, when they arrive in order.
   */
  async each(after: string, take: (match: Candidate) => boolean): Promise<void> {
    const { scan, indexPlan, wanted } = this.#plan;
    const from = this.isInOrder ? after : '';
    // For a sorted result, all documents must be visited.
    const enough = this.isInOrder ? wanted : Number.POSITIVE_INFINITY;
    const candidates =
      indexPlan === undefined
        ? scanCollection(scan, from === '' ? 0 : positionOf(from), enough)
        : searchIndex(scan, indexPlan, from, enough);
    for await (const some of candidates) {
      this.#holdPage(some);
      for (const candidate of some) {
        const turn = scan.work.pause();
        if (turn !== undefined) await turn;
        const holds = this.holds(candidate);
        if (holds === true || (holds !== false && (await holds))) {
          this.#matched++;
          if (take(candidate)) return;
        }
        candidate.forget();
        if (scan.endsAt?.(candidate.position) === true) return;
      }
      this.#pageBytes = 0;
    }
  }

  /** The number of matches, by the index alone where it decides the condition. */
  async count(): Promise<number> {
    const { scan, indexPlan } = this.#plan;
    const counted = indexPlan && (await countEntries(scan, indexPlan));
    if (counted === undefined) await this.each('', () => false);
    else this.#matched = counted;
    return this.#matched;
  }

  /** Sets the memory of the results that the request keeps. @throws AppError `rate_limited`, `overloaded`. */
  keeps(bytes: number): void {
    this.#keptBytes = bytes;
    this.#hold();
  }

  /** Counts comparisons beside those of the condition. @throws AppError `query_too_expensive`. */
  spendWork(work: number): void {
    this.#plan.scan.budget.spendWork(work);
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
    const { scan, indexPlan } = this.#plan;
    const seen = indexPlan !== undefined && indexPlan.inOrder === undefined ? scan.budget.documents : 0;
    scan.work.hold(this.#pageBytes + this.#keptBytes + seen * SEEN_BYTES + scan.snapshotBytes());
  }

  /** Whether the condition holds for a candidate. */
  holds(candidate: Candidate): boolean | Promise<boolean> {
    const { order, paths } = this.#plan;
    const { document, isExactMatch } = candidate;
    const keys = order.length + paths.length;
    if (isExactMatch && keys === 0) return true;
    const bytes = document.text.length;
    if (bytes > LARGE_BYTES) return this.#evaluateInThread(candidate);
    if (bytes > STEP_BYTES) {
      if (isHeavy(document.text, weightAtOnceMax(this.#plan))) return this.#evaluateInThread(candidate);
      return this.#holdsInSteps(candidate);
    }
    const values = bytes > ESTIMATED_BYTES_MAX ? weightOf(candidate.value) : bytes / BYTES_OF_VALUE;
    return this.#holdsOf(candidate, values);
  }

  async #holdsInSteps(candidate: Candidate): Promise<boolean> {
    const values = weightOf(candidate.value);
    await this.#plan.scan.work.pause();
    return await this.#holdsOf(candidate, values);
  }

  /** @param values approximate number of values in the document. */
  #holdsOf(candidate: Candidate, values: number): boolean | Promise<boolean> {
    const { scan, holds, operators } = this.#plan;
    if (values > weightAtOnceMax(this.#plan)) return this.#evaluateInThread(candidate);
    if (candidate.isExactMatch) return true;
    scan.budget.spendWork(values * operators);
    return holds(candidate.value);
  }

  /** Evaluates a large or expensive document in another thread. */
  async #evaluateInThread(candidate: Candidate): Promise<boolean> {
    const { scan, whereText, orderBy, paths } = this.#plan;
    const { document, position, isExactMatch } = candidate;
    candidate.forgetValue();
    // The wait there may be longer than other requests wait for an open project.
    scan.releaseStore();
    const input = {
      text: document.text,
      position,
      orderBy,
      budget: scan.budget.ofDocument,
      where: isExactMatch || whereText === '' ? undefined : whereText,
      fields: paths.map((path) => path.join('.')),
    };
    const evaluated = await scan.work.elsewhere(JOBS.evaluate, input).catch((error: unknown) => {
      // It took as long as an expensive condition may.
      throw hasCode(error, 'payload_too_large') ? scan.budget.refusal() : error;
    });
    scan.budget.spendWork(evaluated.work);
    candidate.wasEvaluated(evaluated);
    return evaluated.holds;
  }

  get stats(): ExecutionStats {
    const { scan, indexPlan, order } = this.#plan;
    const ordered = order.length === 0 ? 'creation' : 'index';
    return {
      unreadable: scan.unreadable,
      explanation: {
        index: indexPlan?.index.name ?? null,
        order: this.isInOrder ? ordered : 'sorted',
        documents_scanned: scan.budget.documents,
        bytes_scanned: scan.budget.bytes,
        documents_matched: this.#matched,
      },
    };
  }
}
