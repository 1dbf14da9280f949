import type { Work } from './work.ts';

/** Takes all steps. Yields to other work before each. @returns what the steps return. */
export async function inSteps<T>(steps: Generator<void, T>, work: Work): Promise<T> {
  try {
    for (;;) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      const step = steps.next();
      if (step.done === true) return step.value;
    }
  } finally {
    work.leave();
  }
}
