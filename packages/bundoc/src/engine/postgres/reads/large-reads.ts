import type { BatchQueue } from '@bundoc/shared/runtime/batcher';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { ReadyQueues } from '../commit/ready-queues.ts';

/** Large documents in one statement. */
const DOCUMENTS_MAX = 32;
/**
 * Maximum sealed bytes that a statement for large documents returns, unless a single document has more. On
 * the wire, and while the client parses them, they take a few times as much.
 */
export const LARGE_BYTES_MAX = 4_194_304;

interface LargeRead {
  readonly share: ShareKey;
  readonly size: number;
}

interface Queue<Read> {
  readonly subject: string;
  readonly name: string;
  readonly reads: Read[];
}

/**
 * Large documents that wait for a statement. It takes one of each subject in turn, and of each project within
 * a subject. The next statement starts with those that this one left out.
 */
export class LargeReads<Read extends LargeRead> implements BatchQueue<Read> {
  readonly #ready = new ReadyQueues<Queue<Read>>();
  /** By name: subject and project. */
  readonly #queues = new Map<string, Queue<Read>>();

  /** Projects that wait. */
  get size(): number {
    return this.#ready.size;
  }

  add(read: Read): void {
    const { subject, project } = read.share;
    const name = `${subject}\0${project}`;
    const queue = this.#queues.get(name) ?? { subject, name, reads: [] };
    if (queue.reads.push(read) > 1) return;
    this.#queues.set(name, queue);
    this.#ready.add(queue);
  }

  take(): Read[] {
    const taken: Read[] = [];
    let bytes = 0;
    let isFull = false;
    const from = this.#ready.inTurn(DOCUMENTS_MAX, ({ reads }) => {
      const [first] = reads;
      if (first === undefined || isFull) return false;
      bytes += first.size;
      // No smaller one may overtake the first that does not fit.
      isFull = taken.length === DOCUMENTS_MAX || (bytes > LARGE_BYTES_MAX && taken.length > 0);
      if (!isFull) taken.push(...reads.splice(0, 1));
      return !isFull;
    });
    for (const queue of from)
      if (queue.reads.length > 0) this.#ready.add(queue);
      else this.#queues.delete(queue.name);
    return taken;
  }
}
