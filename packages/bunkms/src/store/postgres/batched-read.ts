import { AppError } from '@bundoc/shared/contract/app-error';
import { Batcher } from '@bundoc/shared/runtime/batcher';
import type { Sql } from '../sql/statement.ts';
import type { Pools } from './pools.ts';

/** Statements that are under way at the same time; what comes meanwhile goes together in the next one. */
const UNDER_WAY_MAX = 2;
/** Questions of one statement, and questions that may wait; beyond it `overloaded`. */
const BATCH_MAX = 128;
const WAITING_MAX = 1_024;

interface Waiting<Answer> {
  readonly id: string;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Asks the same kind of question for many callers in one statement, which costs little more than one for each
 * alone. A statement begins after everybody whom it answers has asked, so an answer is never older than its
 * question.
 */
export class BatchedRead<Answer> {
  readonly #pools: Pick<Pools, 'read'>;
  readonly #look: (ids: readonly string[]) => Sql<ReadonlyMap<string, Answer>>;
  readonly #absent: Answer;
  readonly #batcher = new Batcher<Waiting<Answer>>({
    queue: BATCH_MAX,
    batchesMax: UNDER_WAY_MAX,
    run: (batch) => this.#answer(batch),
  });

  /** @param look gives the answers by what was asked; `absent` is that of those which it leaves out. */
  constructor(
    pools: Pick<Pools, 'read'>,
    look: (ids: readonly string[]) => Sql<ReadonlyMap<string, Answer>>,
    absent: Answer,
  ) {
    this.#pools = pools;
    this.#look = look;
    this.#absent = absent;
  }

  /** @throws AppError `storage_unavailable`, `overloaded`. */
  ask(id: string): Promise<Answer> {
    if (this.#batcher.waiting >= WAITING_MAX) return Promise.reject(new AppError('overloaded'));
    return new Promise((resolve, reject) => this.#batcher.add({ id, resolve, reject }));
  }

  async #answer(batch: readonly Waiting<Answer>[]): Promise<void> {
    try {
      const ids = [...new Set(batch.map(({ id }) => id))];
      const answers = await this.#pools.read(this.#look(ids));
      for (const { id, resolve } of batch) resolve(answers.get(id) ?? this.#absent);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
