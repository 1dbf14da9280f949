import { setImmediate } from 'node:timers/promises';

/** Items that wait for a batch. */
export interface BatchQueue<Item> {
  readonly size: number;
  add(item: Item): void;
  /** Removes and returns the items of the next batch, at least one when any waits. */
  take(): readonly Item[];
}

export interface BatcherOptions<Item> {
  /** Processes one batch and settles its items. Must not reject. */
  readonly run: (batch: readonly Item[]) => Promise<void>;
  /** Maximum items of one batch in arrival order, or a queue that chooses them. */
  readonly queue: number | BatchQueue<Item>;
  /** Maximum concurrent batches; 1 by default. */
  readonly batchesMax?: number;
  /**
   * Whether each batch starts at the end of the event loop's turn, so that items of the same turn share it.
   */
  readonly isGathering?: boolean;
}

/**
 * Processes items in batches. While the maximum number of batches run, further items wait and form the next
 * batch.
 */
export class Batcher<Item> {
  readonly #options: BatcherOptions<Item>;
  readonly #queue: BatchQueue<Item>;
  readonly #runs = new Set<Promise<void>>();
  #running = 0;

  constructor(options: BatcherOptions<Item>) {
    this.#options = options;
    this.#queue = typeof options.queue === 'number' ? new Fifo(options.queue) : options.queue;
  }

  /** Items that are not in a batch yet. */
  get waiting(): number {
    return this.#queue.size;
  }

  add(item: Item): void {
    this.#queue.add(item);
    if (this.#running === (this.#options.batchesMax ?? 1)) return;
    this.#running++;
    const run = this.#run();
    this.#runs.add(run);
    void run.then(() => this.#runs.delete(run));
  }

  /** Resolves once no item waits and no batch runs. */
  async settled(): Promise<void> {
    while (this.#runs.size > 0) await Promise.all(this.#runs);
  }

  async #run(): Promise<void> {
    const { run, isGathering = false } = this.#options;
    if (isGathering) await setImmediate();
    while (this.#queue.size > 0) {
      await run(this.#queue.take());
      if (isGathering) await setImmediate();
    }
    this.#running--;
  }
}

class Fifo<Item> implements BatchQueue<Item> {
  readonly #itemsMax: number;
  readonly #items: Item[] = [];

  constructor(itemsMax: number) {
    this.#itemsMax = itemsMax;
  }

  get size(): number {
    return this.#items.length;
  }

  add(item: Item): void {
    this.#items.push(item);
  }

  take(): Item[] {
    return this.#items.splice(0, this.#itemsMax);
  }
}
