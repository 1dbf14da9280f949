import type { Hold, Pool } from '../admission/pool.ts';
import type { ShareKey } from '../shares/share-key.ts';

/**
 * Smaller writes are not counted, because a connection buffers this much anyway. They may also be parts of
 * shared memory.
 */
export const COUNTED_WRITE_BYTES_MIN = 16_384;

/**
 * Limits the memory of stream data that readers have not received yet. Bytes that several streams share count
 * once, for the first stream.
 */
export class StreamBufferBudget {
  readonly #share: Pool;
  readonly #holders = new Map<object, { readonly hold: Hold; count: number }>();

  constructor(share: Pool) {
    this.#share = share;
  }

  /**
   * Takes room for a write.
   *
   * @param memory identifies the shared memory of the bytes. All streams that share it must pass the same
   *   number of bytes.
   * @returns a function to call once, which releases the room; undefined when there is no room.
   */
  hold(key: ShareKey, memory: object, bytes: number): (() => void) | undefined {
    const known = this.#holders.get(memory);
    const hold = known?.hold ?? this.#share.tryTakeMore(key, bytes);
    if (hold === undefined) {
      this.#share.refusal(key, bytes);
      return undefined;
    }
    const holders = known ?? { hold, count: 0 };
    holders.count++;
    this.#holders.set(memory, holders);
    return () => {
      if (--holders.count > 0) return;
      this.#holders.delete(memory);
      hold[Symbol.dispose]();
    };
  }
}
