/** Writes below this are not counted: a connection holds as much in any case. They may lie in memory that others use as well. */
export const COUNTED_WRITE_BYTES_MIN = 16_384;

/**
 * Room for what streams hold for readers that have not taken it yet, all streams together. Bytes that several hold are in memory once, and
 * count once.
 */
export class StreamRoom {
  readonly #bytesMax: number;
  readonly #holders = new Map<object, number>();
  #heldBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /**
   * Takes room for a write. One that is larger than all the room is let in when nothing else is held.
   *
   * @param memory what the bytes are in: the same for whoever shares them, who all name the same number of bytes.
   * @returns what gives the room back, once; undefined when there is none.
   */
  hold(memory: object, bytes: number): (() => void) | undefined {
    const holders = this.#holders.get(memory) ?? 0;
    if (holders === 0) {
      if (this.#heldBytes > 0 && this.#heldBytes + bytes > this.#bytesMax) return undefined;
      this.#heldBytes += bytes;
    }
    this.#holders.set(memory, holders + 1);
    return () => {
      const others = (this.#holders.get(memory) ?? 0) - 1;
      if (others > 0) {
        this.#holders.set(memory, others);
        return;
      }
      this.#holders.delete(memory);
      this.#heldBytes -= bytes;
    };
  }
}
