import { AppError } from '@bundoc/shared/contract/app-error';

export interface ScanLimits {
  readonly documentsMax: number;
  /** Bytes of their texts. */
  readonly bytesMax: number;
  /**
   * Values of documents, times the operators that they are held against: of all, and of one, which is looked
   * at without a pause.
   */
  readonly workMax: number;
  readonly documentWorkMax: number;
}

/** What one request may look at. */
export const SCAN_LIMITS: ScanLimits = {
  documentsMax: 100_000,
  bytesMax: 268_435_456,
  workMax: 1_000_000_000,
  documentWorkMax: 20_000_000,
};

/** Counts what one request looks at, and ends it when that is too much. */
export class ScanBudget {
  readonly #limits: ScanLimits;
  readonly #advice: string;
  documents = 0;
  bytes = 0;
  #work = 0;

  /** @param advice what would make the request cheap, as a sentence. */
  constructor(limits: ScanLimits, advice: string) {
    this.#limits = limits;
    this.#advice = advice;
  }

  /** For one document, or so many together. @throws AppError `query_too_expensive`. */
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

  /** Of a query that would take too many comparisons. */
  refusal(): AppError {
    const { documentWorkMax, workMax } = this.#limits;
    return refuseWork(documentWorkMax, workMax, this.#advice);
  }

  /** What the work on one document, which is done elsewhere, is bounded by. */
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

/** The refusal of a query that would take too many comparisons. */
export function refuseWork(documentWorkMax: number, workMax: number, advice: string): AppError {
  return new AppError('query_too_expensive', {
    detail: `more than ${documentWorkMax} comparisons for one document, or ${workMax} in all, might have to be made; use fewer operators, or ${advice}`,
  });
}
