import { AppError } from '@bundoc/shared/contract/app-error';
import { Batcher } from '@bundoc/shared/runtime/batcher';
import type { Sql } from '../sql/statement.ts';
import type { Pools } from './pools.ts';

/** Maximum concurrent statements. Further calls share the next one. */
const UNDER_WAY_MAX = 2;
/** Maximum calls per statement, and waiting calls. Beyond it `overloaded`. */
const BATCH_MAX = 128;
const WAITING_MAX = 1_024;

interface QueuedRead<Answer> {
  readonly id: string;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Answers many calls of the same query with one statement, which costs little more than a single query. A
 * statement begins after all its calls, so an answer is never older than its call.
 */
export class BatchedRead<Answer> {
  readonly #pools: Pick<Pools, 'read'>;
  readonly #read: (ids: readonly string[]) => Sql<ReadonlyMap<string, Answer>>;
  readonly #absent: Answer;
  readonly #batcher = new Batcher<QueuedRead<Answer>>({
    queue: BATCH_MAX,
    batchesMax: UNDER_WAY_MAX,
    run: (batch) => this.#answer(batch),
  });

  /** @param read returns the answers by id; `absent` is the answer for ids that it leaves out. */
  constructor(
    pools: Pick<Pools, 'read'>,
    read: (ids: readonly string[]) => Sql<ReadonlyMap<string, Answer>>,
    absent: Answer,
  ) {
    this.#pools = pools;
    this.#read = read;
    this.#absent = absent;
  }

  /** @throws AppError `storage_unavailable`, `overloaded`. */
  ask(id: string): Promise<Answer> {
    if (this.#batcher.waiting >= WAITING_MAX) return Promise.reject(new AppError('overloaded'));
    return new Promise((resolve, reject) => this.#batcher.add({ id, resolve, reject }));
  }

  async #answer(batch: readonly QueuedRead<Answer>[]): Promise<void> {
    try {
      const ids = [...new Set(batch.map(({ id }) => id))];
      const answers = await this.#pools.read(this.#read(ids));
      for (const { id, resolve } of batch) resolve(answers.get(id) ?? this.#absent);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
