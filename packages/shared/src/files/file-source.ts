import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** Random access to bytes. */
export interface ByteSource {
  readonly sizeBytes: number;
  /** @returns the requested number of bytes; fewer only at the end. */
  read(at: number, bytes: number): Promise<Buffer>;
}

/**
 * Opens a file as a source of bytes; the caller closes it. @throws Error unless it is a readable regular
 * file.
 */
export async function openFileSource(path: string): Promise<ByteSource & AsyncDisposable> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error(`${path} is not a regular file`);
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
