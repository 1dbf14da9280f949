/**
 * Runs tasks of one key one after another, in the order of the calls. Tasks of different keys run
 * concurrently.
 */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();

  /** Resolves or rejects as `task` does. The next task runs even if this one rejects. */
  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const result = before === undefined ? task() : before.then(task);
    const tail = result.then(ignore, ignore).then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    this.#tails.set(key, tail);
    return result;
  }

  /** Resolves once the present tasks of `key` have settled; undefined when it has none. */
  settled(key: string): Promise<void> | undefined {
    return this.#tails.get(key);
  }

  /** Resolves once all present tasks have settled. */
  async drained(): Promise<void> {
    await Promise.all(this.#tails.values());
  }
}

function ignore(): void {}

/** Runs tasks one after another, in the order of their calls. */
export class Mutex {
  readonly #tasks = new KeyedMutex();

  /** As {@link KeyedMutex.run}. */
  run<T>(task: () => Promise<T>): Promise<T> {
    return this.#tasks.run('', task);
  }
}
