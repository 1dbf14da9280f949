/** Runs tasks one after another, in the order of their calls. */
export class Mutex {
  #last: Promise<unknown> | undefined;

  /** Resolves or rejects as `task` does. A rejected task does not keep the next one from running. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const result = before === undefined ? task() : before.then(task, task);
    this.#last = result;
    const end = () => {
      if (this.#last === result) this.#last = undefined;
    };
    result.then(end, end);
    return result;
  }
}
