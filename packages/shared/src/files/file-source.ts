import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** Bytes that can be read from any place. */
export interface ByteSource {
  readonly sizeBytes: number;
  /** @returns as many bytes as are asked for; fewer only at the end. */
  read(at: number, bytes: number): Promise<Buffer>;
}

/**
 * A file as a source of bytes; who opens it closes it. @throws Error unless it is a regular file that can be
 * read.
 */
export async function openFileSource(path: string): Promise<ByteSource & AsyncDisposable> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error(`${path} is no regular file`);
    return {
      sizeBytes: stats.size,
      read: async (at, bytes) => {
        const buffer = Buffer.alloc(bytes);
        let filled = 0;
        while (filled < bytes) {
          const { bytesRead } = await file.read(buffer, filled, bytes - filled, at + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return buffer.subarray(0, filled);
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
