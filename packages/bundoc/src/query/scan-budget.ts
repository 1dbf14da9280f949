import { AppError } from '@bundoc/shared/errors';

export interface ScanLimits {
  readonly documentsMax: number;
  /** Bytes of their texts. */
  readonly bytesMax: number;
}

/** What one request may look at. */
export const SCAN_LIMITS: ScanLimits = { documentsMax: 100_000, bytesMax: 268_435_456 };

/** Counts what one request looks at, and ends it when that is too much. */
export class ScanBudget {
  readonly #limits: ScanLimits;
  readonly #advice: string;
  documents = 0;
  bytes = 0;

  /** @param advice what would make the request cheap, as a sentence. */
  constructor(limits: ScanLimits, advice: string) {
    this.#limits = limits;
    this.#advice = advice;
  }

  /** @throws AppError `query_too_expensive`. */
  spend(bytes: number): void {
    this.documents++;
    this.bytes += bytes;
    const { documentsMax, bytesMax } = this.#limits;
    if (this.documents > documentsMax || this.bytes > bytesMax)
      throw new AppError('query_too_expensive', {
        detail: `more than ${documentsMax} documents or ${bytesMax} bytes would have to be read; ${this.#advice}`,
      });
  }
}
