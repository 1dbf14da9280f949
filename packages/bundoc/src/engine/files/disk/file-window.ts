import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { ReadableFile } from './disk.ts';

/** Bytes that are read at once: most catalogs are shorter, so that one read suffices. */
const PIECE_BYTES = 1_048_576;

/** Reads a file from its start to its end, in pieces, into one buffer that is used again. */
export class FileWindow implements Disposable {
  readonly #file: ReadableFile;
  #buffer = Buffer.alloc(0);
  /** The bytes of the buffer that were read and not skipped. */
  #start = 0;
  #end = 0;
  /** Where the next read begins. */
  #offset = 0;

  /** @param file its owner disposes of it, after this. */
  constructor(file: ReadableFile) {
    this.#file = file;
  }

  /** Bytes that were not skipped, by the size that the file had when it was opened. */
  get left(): number {
    return this.#file.bytes - this.#offset + this.#end - this.#start;
  }

  /**
   * The next bytes, fewer only at the end of the file: a view that is valid until the next call. No promise
   * when they were read before.
   */
  peek(bytes: number): Buffer | Promise<Buffer> {
    const wanted = Math.min(bytes, this.left);
    return this.#end - this.#start < wanted ? this.#fill(wanted) : this.#view(wanted);
  }

  #view(bytes: number): Buffer {
    return this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + bytes));
  }

  /** Goes past bytes that were peeked at. */
  skip(bytes: number): void {
    this.#start += bytes;
  }

  async #fill(bytes: number): Promise<Buffer> {
    const kept = this.#buffer.subarray(this.#start, this.#end);
    const wanted = Math.min(Math.max(bytes, PIECE_BYTES), this.left);
    const target = wanted > this.#buffer.length ? Buffer.allocUnsafeSlow(wanted) : this.#buffer;
    kept.copy(target);
    [this.#start, this.#end] = [0, kept.length];
    if (target !== this.#buffer) freeMemory(this.#buffer);
    this.#buffer = target;
    const read = await this.#file.readInto(target.subarray(this.#end, wanted), this.#offset);
    this.#offset += read;
    this.#end += read;
    return this.#view(bytes);
  }

  [Symbol.dispose](): void {
    freeMemory(this.#buffer);
  }
}

/** The whole content of a file, piece by piece. */
export async function* contentOf(file: ReadableFile): AsyncGenerator<Buffer> {
  using window = new FileWindow(file);
  for (;;) {
    const piece = await window.peek(PIECE_BYTES);
    if (piece.length === 0) return;
    yield Buffer.from(piece);
    window.skip(piece.length);
  }
}
