import { claimsOf } from '@bundoc/shared/http/guard';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { Share } from '@bundoc/shared/shares/share';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyRequest } from 'fastify';

/**
 * Units of store work in progress. A page is {@link PAGE_UNITS}, everything else is one. Exports, changes of
 * keys and revocations do not count: what is in progress here is all that they may have to wait for.
 */
const CAPACITY = 32;
/** For two pages of one subject: one of them is read while the other is authenticated. */
const SUBJECT_MAX = 8;
const PAGE_UNITS = 4;
/** So that single reads and slices of an audit verification do not wait for pages. */
const RESERVE = 4;

/** What the share needs of the metrics. */
export interface StoreWorkMetrics {
  watchShares(shares: readonly Share[]): void;
}

/**
 * The store work of requests that a caller may repeat without end: lists, reads and creations. The store does
 * one thing after the other, so a bounded number of them is in progress, and subjects take turns.
 */
export class StoreWork {
  readonly #share: Share;

  constructor(clock: Clock, metrics: StoreWorkMetrics) {
    this.#share = new Share({
      ...{ name: 'store work', capacity: CAPACITY, subjectMax: SUBJECT_MAX, clock },
      ...{ reserve: RESERVE, smallMax: 1 },
    });
    metrics.watchShares([this.#share]);
  }

  /**
   * Does the work for a page of results when it is the turn of the caller. @throws AppError as {@link
   * Share.take}, and what the work throws.
   */
  page<T>(request: FastifyRequest, work: () => Promise<T>): Promise<T> {
    return this.#run(request, PAGE_UNITS, work);
  }

  /** {@link page} for work on one key, or on a slice of the chain. */
  single<T>(request: FastifyRequest, work: () => Promise<T>): Promise<T> {
    return this.#run(request, 1, work);
  }

  async #run<T>(request: FastifyRequest, units: number, work: () => Promise<T>): Promise<T> {
    using _hold = await this.#share.take(shareKeyOf(claimsOf(request)), units);
    return await work();
  }
}
