import { setImmediate } from 'node:timers/promises';

/** Items that wait for a batch. */
export interface BatchQueue<Item> {
  readonly size: number;
  add(item: Item): void;
  /** Removes and returns the items of the next batch, at least one when any waits. */
  take(): readonly Item[];
}

export interface BatcherOptions<Item> {
  /** Handles one batch and answers its items. Must not reject. */
  readonly run: (batch: readonly Item[]) => Promise<void>;
  /** Items of one batch in the order in which they came, or a queue that decides. */
  readonly queue: number | BatchQueue<Item>;
  /** Batches that run at the same time; 1 when absent. */
  readonly batchesMax?: number;
  /**
   * Each batch waits for the end of the event loop's turn: items that are added in the same turn share it.
   */
  readonly isGathering?: boolean;
}

/**
 * Handles items in batches: while as many batches run as may, further items wait and go together in the next
 * one.
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

  /** Items that are in no batch yet. */
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
