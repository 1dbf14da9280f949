import type { Hold } from '../shares/hold.ts';
import type { Share } from '../shares/share.ts';
import type { ShareKey } from '../shares/share-key.ts';

/**
 * Writes below this are not counted: a connection holds as much in any case. They may lie in memory that
 * others use as well.
 */
export const COUNTED_WRITE_BYTES_MIN = 16_384;

/**
 * Room for what streams hold for readers that have not taken it yet. Bytes that several hold are in memory
 * once, and count once: for the one that was first.
 */
export class StreamBufferBudget {
  readonly #share: Share;
  readonly #holders = new Map<object, { readonly hold: Hold; count: number }>();

  constructor(share: Share) {
    this.#share = share;
  }

  /**
   * Takes room for a write.
   *
   * @param memory what the bytes are in: the same for all that share them, who all name the same number of
   * bytes.
   * @returns what gives the room back, once; undefined when there is none.
   */
  hold(key: ShareKey, memory: object, bytes: number): (() => void) | undefined {
    const known = this.#holders.get(memory);
    const hold = known?.hold ?? this.#share.tryTake(key, bytes);
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
