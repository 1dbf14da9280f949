import { OpenError, SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { LENGTH_BYTES } from '@bundoc/shared/crypto/sealed-stream';
import type { FileWindow } from '../disk/file-window.ts';

/** A chunk of a sealed stream. */
export interface SealedChunk {
  /** Its bytes without the length: a view of the window. */
  readonly sealed: Buffer;
  readonly isLast: boolean;
}

/**
 * Takes the next chunk of a sealed stream that ends where the file ends. The caller opens it before it takes
 * another one, so what does not authenticate costs the memory of one chunk, however long the file is.
 *
 * @param bytesMax of a chunk without its length.
 * @throws OpenError for a length that no writer writes, or that the file does not have.
 */
export async function takeChunk(window: FileWindow, bytesMax: number): Promise<SealedChunk> {
  const peeked = window.peek(LENGTH_BYTES);
  const head = Buffer.isBuffer(peeked) ? peeked : await peeked;
  const length = head.length === LENGTH_BYTES ? head.readUInt32BE() : 0;
  const bytes = LENGTH_BYTES + length;
  if (length < SEAL_OVERHEAD_BYTES || length > bytesMax || bytes > window.left) throw new OpenError();
  const isLast = bytes === window.left;
  const found = window.peek(bytes);
  const chunk = Buffer.isBuffer(found) ? found : await found;
  // The file became shorter.
  if (chunk.length < bytes) throw new OpenError();
  window.skip(bytes);
  return { sealed: chunk.subarray(LENGTH_BYTES), isLast };
}
