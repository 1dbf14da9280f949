import { freeMemory } from '../runtime/free-memory.ts';

/** Bodies of at least this size are copied as they arrive. */
const COPIED_BYTES_MIN = 262_144;
/** The part of the announced bytes that must arrive before memory for all of them is allocated. */
const ARRIVED_PART = 1 / 4;

/**
 * Assembles a body from its chunks. Most of a large body is copied chunk by chunk as it arrives, because
 * copying 16 MiB at once would block the event loop.
 */
export class GatheredBody {
  readonly #announced: number | undefined;
  #chunks: Buffer[] = [];
  #whole: Buffer | undefined;
  #length = 0;

  /** @param announcedBytes the length of the body; undefined when unknown. */
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
    // Pages that were never written take no physical memory.
    this.#whole = Buffer.allocUnsafeSlow(announced);
    let end = 0;
    for (const one of this.#chunks) {
      one.copy(this.#whole, end);
      end += one.length;
    }
    this.#chunks = [];
  }

  /** Frees a body that is not taken. */
  discard(): void {
    if (this.#whole !== undefined) freeMemory(this.#whole);
    this.#whole = undefined;
    this.#chunks = [];
  }

  /** The complete body. Call it once, at the end. */
  take(): Buffer {
    return this.#whole?.subarray(0, this.#length) ?? Buffer.concat(this.#chunks, this.#length);
  }
}
