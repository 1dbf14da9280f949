import type { BatchQueue } from '@bundoc/shared/runtime/batcher';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { ReadyQueues } from './ready-queues.ts';

/** Items of one project and one subject. */
interface Queue<Item> {
  readonly subject: string;
  readonly project: string;
  readonly items: Set<Item>;
}

export interface FairBatchesOptions<Item> {
  /** Maximum number of items in one batch. */
  readonly itemsMax: number;
  /** Maximum bytes of one batch; its first item may exceed them. Unlimited when absent. */
  readonly bytesMax?: number;
  readonly bytesOf?: (item: Item) => number;
}

/**
 * Items that wait for a batch. A batch takes one item of each subject in turn, and of each project within a
 * subject. The next batch starts with those that this one left out.
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
    // The first item that does not fit starts the next batch; no smaller one may overtake it.
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
