import { setImmediate } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';

export interface GatherOptions<Question, Answer> {
  /** Answers all questions by one statement, in their order. */
  readonly ask: (questions: readonly Question[]) => Promise<readonly Answer[]>;
  /** Statements that run at once, and questions of each. */
  readonly statementsMax: number;
  readonly questionsMax: number;
}

interface Waiting<Question, Answer> {
  readonly question: Question;
  readonly done: PromiseWithResolvers<Answer>;
}

/**
 * Gathers questions into statements. A statement that runs takes no further questions: each answer is of a
 * moment after its question was asked.
 */
export class Gather<Question, Answer> {
  readonly #options: GatherOptions<Question, Answer>;
  #waiting: Waiting<Question, Answer>[] = [];
  #running = 0;

  constructor(options: GatherOptions<Question, Answer>) {
    this.#options = options;
  }

  ask(question: Question): Promise<Answer> {
    const done = Promise.withResolvers<Answer>();
    this.#waiting.push({ question, done });
    if (this.#running < this.#options.statementsMax) {
      this.#running++;
      void this.#run();
    }
    return done.promise;
  }

  async #run(): Promise<void> {
    // Questions of the same turn of the event loop share the statement, also behind an earlier one.
    for (await setImmediate(); this.#waiting.length > 0; await setImmediate())
      await inHalves(
        this.#waiting.splice(0, this.#options.questionsMax),
        (some) => this.#answer(some),
        ({ done }, error) => done.reject(error),
      );
    this.#running--;
  }

  async #answer(some: readonly Waiting<Question, Answer>[]): Promise<void> {
    const answers = await this.#options.ask(some.map(({ question }) => question));
    for (const [at, { done }] of some.entries()) done.resolve(answers[at] as Answer);
  }
}

/**
 * Runs an action that changes nothing for all. When it fails for another reason than an unavailable server,
 * it runs for each half by itself: a damaged row fails alone. Never rejects.
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
