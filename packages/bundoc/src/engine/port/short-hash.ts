import { createHash } from 'node:crypto';

/** 16 bytes of SHA-256, in hex: the stored form of idempotency keys and requests. */
export function shortHash(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    const bytes = Buffer.from(part as Uint8Array);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest().toString('hex', 0, 16);
}
