/** Bodies from here on are copied as they arrive. */
const COPIED_BYTES_MIN = 262_144;
/** The part of the announced bytes that must have arrived before memory for all of them is taken. */
const ARRIVED_PART = 1 / 4;

/**
 * The bytes of a body that arrive one after the other. Most of a large one is copied into its place chunk by
 * chunk, so that its end copies nothing: 16 MiB at once would hold up the event loop.
 */
export class GatheredBody {
  readonly #announced: number | undefined;
  #chunks: Buffer[] = [];
  #whole: Buffer | undefined;
  #length = 0;

  /** @param announcedBytes that it will have; undefined where nobody knows. */
  constructor(announcedBytes: number | undefined) {
    this.#announced = announcedBytes;
  }

  add(chunk: Buffer): void {
    const at = this.#length;
    this.#length += chunk.length;
    if (this.#whole !== undefined) {
      chunk.copy(this.#whole, at);
      return;
    }
    this.#chunks.push(chunk);
    const announced = this.#announced;
    if (announced === undefined || announced < COPIED_BYTES_MIN || this.#length > announced) return;
    if (this.#length < announced * ARRIVED_PART) return;
    // What nobody has written to takes no memory of the system.
    this.#whole = Buffer.allocUnsafeSlow(announced);
    let end = 0;
    for (const one of this.#chunks) {
      one.copy(this.#whole, end);
      end += one.length;
    }
    this.#chunks = [];
  }

  /** All of it. To be called once, at its end. */
  take(): Buffer {
    return this.#whole?.subarray(0, this.#length) ?? Buffer.concat(this.#chunks, this.#length);
  }
}
