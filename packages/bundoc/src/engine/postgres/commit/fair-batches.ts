import type { BatchQueue } from '@bundoc/shared/runtime/batcher';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { ReadyQueues } from './ready-queues.ts';

/** Items of one project that one subject waits for. */
interface Queue<Item> {
  readonly subject: string;
  readonly project: string;
  readonly items: Set<Item>;
}

export interface FairBatchesOptions<Item> {
  /** Items of one batch. */
  readonly itemsMax: number;
  /** Bytes of all items of one batch; the first is taken whatever it has. No bound when absent. */
  readonly bytesMax?: number;
  readonly bytesOf?: (item: Item) => number;
}

/**
 * Items that wait for a batch, which takes one of each subject in turn, then one of each project of a
 * subject. Whose turn did not come is first in the next batch.
 */
export class FairBatches<Item extends { readonly share: ShareKey }> implements BatchQueue<Item> {
  readonly #options: Required<FairBatchesOptions<Item>>;
  readonly #ready = new ReadyQueues<Queue<Item>>();
  /** By subject and project. */
  readonly #queues = new Map<string, Queue<Item>>();
  #size = 0;

  constructor({
    itemsMax,
    bytesMax = Number.POSITIVE_INFINITY,
    bytesOf = () => 0,
  }: FairBatchesOptions<Item>) {
    this.#options = { itemsMax, bytesMax, bytesOf };
  }

  get size(): number {
    return this.#size;
  }

  add(item: Item): void {
    const { subject, project } = item.share;
    const name = nameOf(item.share);
    let queue = this.#queues.get(name);
    if (queue === undefined) {
      queue = { subject, project, items: new Set() };
      this.#queues.set(name, queue);
      this.#ready.add(queue);
    }
    queue.items.add(item);
    this.#size++;
  }

  take(): Item[] {
    const { itemsMax, bytesMax, bytesOf } = this.#options;
    const taken: Item[] = [];
    const from = new Set<Queue<Item>>();
    let bytes = 0;
    // What does not fit is the first of the next batch: others do not go before it.
    let isFull = false;
    this.#ready.inTurn(itemsMax, (queue) => {
      const [first] = queue.items;
      if (first === undefined || isFull || taken.length === itemsMax) return false;
      const more = bytesOf(first);
      isFull = bytes + more > bytesMax && taken.length > 0;
      if (isFull) return false;
      bytes += more;
      taken.push(first);
      queue.items.delete(first);
      from.add(queue);
      return true;
    });
    this.#ready.remove(from);
    for (const queue of from)
      if (queue.items.size > 0) this.#ready.add(queue);
      else this.#queues.delete(nameOf(queue));
    this.#size -= taken.length;
    return taken;
  }
}

function nameOf({ subject, project }: ShareKey): string {
  return `${subject}\0${project}`;
}
