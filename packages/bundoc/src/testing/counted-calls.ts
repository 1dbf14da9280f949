import { Session } from 'node:inspector';

interface Coverage {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly { readonly ranges: readonly { readonly count: number }[] }[];
  }[];
}

/** Counts the calls of the functions of some files: work that does not depend on the speed of a machine. */
class CountedCalls implements Disposable {
  readonly #session = new Session();
  readonly #folder: string;

  /** @param folder the end of the folder's path; functions of its files count. */
  constructor(folder: string) {
    this.#folder = `${folder}/`;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    this.take();
  }

  /** The calls since the last time. */
  take(): number {
    let calls = 0;
    // A session of the own thread answers at once.
    this.#session.post('Profiler.takePreciseCoverage', (error: Error | null, { result }: Coverage) => {
      if (error !== null) throw error;
      for (const { url, functions } of result)
        if (url.includes(this.#folder)) for (const { ranges } of functions) calls += ranges[0]?.count ?? 0;
    });
    return calls;
  }

  [Symbol.dispose](): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }
}

/** The calls that `run` makes. */
export function callsOf(run: () => unknown, folder: string): number {
  using counted = new CountedCalls(folder);
  run();
  return counted.take();
}

/** Takes all steps. @returns the calls of each. */
export function callsOfSteps(steps: Iterator<void>, folder: string): number[] {
  using counted = new CountedCalls(folder);
  const calls: number[] = [];
  for (let isDone = false; !isDone; ) {
    isDone = steps.next().done === true;
    calls.push(counted.take());
  }
  return calls;
}
