import { hasCode } from '@bundoc/shared/contract/app-error';
import { Batcher } from '@bundoc/shared/runtime/batcher';

export interface GatherOptions<Question, Answer> {
  /** Answers all questions with one statement, in order. */
  readonly ask: (questions: readonly Question[]) => Promise<readonly Answer[]>;
  /** Maximum number of concurrent statements, and of questions in each. */
  readonly statementsMax: number;
  readonly questionsMax: number;
}

interface AskedQuestion<Question, Answer> {
  readonly question: Question;
  readonly done: PromiseWithResolvers<Answer>;
}

/**
 * Gathers questions into statements, in the order of arrival. A running statement accepts no further
 * questions, so each answer is from after its question.
 */
export class Gather<Question, Answer> {
  readonly #batcher: Batcher<AskedQuestion<Question, Answer>>;

  constructor({ ask, statementsMax, questionsMax }: GatherOptions<Question, Answer>) {
    const answer = async (some: readonly AskedQuestion<Question, Answer>[]) => {
      const answers = await ask(some.map(({ question }) => question));
      for (const [at, { done }] of some.entries()) done.resolve(answers[at] as Answer);
    };
    this.#batcher = new Batcher({
      queue: questionsMax,
      batchesMax: statementsMax,
      isGathering: true,
      run: (batch) => inHalves(batch, answer, ({ done }, error) => done.reject(error)),
    });
  }

  ask(question: Question): Promise<Answer> {
    const done = Promise.withResolvers<Answer>();
    this.#batcher.add({ question, done });
    return done.promise;
  }
}

/**
 * Runs a read-only action for all items. If it fails although the server is available, it is split in halves,
 * so that a damaged row fails alone. Never rejects.
 */
export async function inHalves<T>(
  all: readonly T[],
  run: (some: readonly T[]) => Promise<void>,
  fail: (one: T, error: unknown) => void,
): Promise<void> {
  try {
    await run(all);
  } catch (error) {
    if (all.length === 1 || hasCode(error, 'storage_unavailable')) {
      for (const one of all) fail(one, error);
      return;
    }
    const half = Math.ceil(all.length / 2);
    await inHalves(all.slice(0, half), run, fail);
    await inHalves(all.slice(half), run, fail);
  }
}
