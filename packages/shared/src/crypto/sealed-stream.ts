import type { KeyObject } from 'node:crypto';
import { aadOf, open, SEAL_OVERHEAD_BYTES, sealInto } from './aead.ts';

/**
 * A stream of sealed chunks: for each chunk its length in 4 bytes, then its sealed bytes. The AAD binds each
 * chunk to the stream, to its number and to whether it is the last one. So no chunk can be moved, dropped or
 * repeated, and a truncated stream does not open. (STREAM; V. Hoang, R. Reyhanitabar, P. Rogaway and D.
 * Vizár, 2015.)
 */

/** Bytes of the length before a chunk. */
export const LENGTH_BYTES = 4;
/** Bytes of plaintext after which a writer ends a chunk. */
export const CHUNK_BYTES = 262_144;

/** Seals or opens the chunks of one stream in order. */
export class SealedStream {
  readonly #key: KeyObject;
  readonly #context: readonly string[];
  #chunk = 0;

  /** @param context names the format and the stream: the first parts of each chunk's AAD. */
  constructor(key: KeyObject, ...context: readonly string[]) {
    this.#key = key;
    this.#context = context;
  }

  /** Seals the next chunk. @returns its length and its sealed bytes. */
  seal(plaintext: Uint8Array, isLast: boolean): Buffer {
    const sealedBytes = plaintext.length + SEAL_OVERHEAD_BYTES;
    const chunk = Buffer.allocUnsafeSlow(LENGTH_BYTES + sealedBytes);
    chunk.writeUInt32BE(sealedBytes);
    sealInto(this.#key, plaintext, this.#nextAad(isLast), chunk.subarray(LENGTH_BYTES));
    return chunk;
  }

  /**
   * @param sealed the next chunk without its length.
   * @throws OpenError for anything but the next chunk of this stream.
   */
  open(sealed: Uint8Array, isLast: boolean): Buffer {
    return open(this.#key, sealed, this.#nextAad(isLast));
  }

  #nextAad(isLast: boolean): Buffer {
    return aadOf(...this.#context, String(this.#chunk++), isLast ? 'last' : 'more');
  }
}
