import { randomFillSync } from 'node:crypto';

const BLOCK_BYTES = 4_096;
let block = Buffer.alloc(0);
let used = 0;

/**
 * Fills `target` with secure random bytes from a block that is filled in one call. It is for the many small
 * values of a write, because one call of the system's generator costs as much as sealing a document. No byte
 * is used twice, and used bytes are wiped from the block.
 *
 * For nonces and identifiers. Keys come directly from `randomBytes`.
 */
export function fillRandom(target: Uint8Array): void {
  if (target.length > BLOCK_BYTES) {
    randomFillSync(target);
    return;
  }
  if (used + target.length > block.length) {
    if (block.length === 0) block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    randomFillSync(block);
    used = 0;
  }
  target.set(block.subarray(used, used + target.length));
  block.fill(0, used, used + target.length);
  used += target.length;
}

/** {@link fillRandom} for a new buffer. */
export function smallRandom(bytes: number): Buffer {
  const target = Buffer.allocUnsafe(bytes);
  fillRandom(target);
  return target;
}
