import { AppError } from '@bundoc/shared/contract/app-error';

export interface ScanLimits {
  readonly documentsMax: number;
  /** Bytes of their texts. */
  readonly bytesMax: number;
  /**
   * Values of documents times the operators that test them: in total, and for one document, which is tested
   * without a pause.
   */
  readonly workMax: number;
  readonly documentWorkMax: number;
}

/** Limits of one request. */
export const SCAN_LIMITS: ScanLimits = {
  documentsMax: 100_000,
  bytesMax: 268_435_456,
  workMax: 1_000_000_000,
  documentWorkMax: 20_000_000,
};

/** Counts what one request visits, and ends it at the limits. */
export class ScanBudget {
  readonly #limits: ScanLimits;
  readonly #advice: string;
  documents = 0;
  bytes = 0;
  #work = 0;

  /** @param advice a sentence about how to make the request cheap. */
  constructor(limits: ScanLimits, advice: string) {
    this.#limits = limits;
    this.#advice = advice;
  }

  /** Comparisons that were made. */
  get work(): number {
    return this.#work;
  }

  /** Counts one or several documents. @throws AppError `query_too_expensive`. */
  spend(bytes: number, documents = 1): void {
    this.documents += documents;
    this.bytes += bytes;
    const { documentsMax, bytesMax } = this.#limits;
    if (this.documents > documentsMax || this.bytes > bytesMax)
      throw new AppError('query_too_expensive', {
        detail: `more than ${documentsMax} documents or ${bytesMax} bytes would have to be read; ${this.#advice}`,
      });
  }

  /** @throws AppError `query_too_expensive`. */
  spendWork(work: number): void {
    this.#work += work;
    const { workMax, documentWorkMax } = this.#limits;
    if (this.#work > workMax || work > documentWorkMax) throw this.refusal();
  }

  /** The refusal of a query with too many comparisons. */
  refusal(): AppError {
    const { documentWorkMax, workMax } = this.#limits;
    return refuseWork(documentWorkMax, workMax, this.#advice);
  }

  /** The limits for the work on one document in another thread. */
  get ofDocument(): DocumentBudget {
    const { documentWorkMax, workMax } = this.#limits;
    return { documentWorkMax, workMax, advice: this.#advice };
  }
}

export interface DocumentBudget {
  readonly documentWorkMax: number;
  readonly workMax: number;
  readonly advice: string;
}

/** The refusal of a query with too many comparisons. */
export function refuseWork(documentWorkMax: number, workMax: number, advice: string): AppError {
  return new AppError('query_too_expensive', {
    detail: `more than ${documentWorkMax} comparisons for one document, or ${workMax} in all, might have to be made; use fewer operators, or ${advice}`,
  });
}
