import { randomFillSync } from 'node:crypto';

const BLOCK_BYTES = 4_096;
let block = Buffer.alloc(0);
let used = 0;

/**
 * Fills `target` from the system's generator of secure random numbers, by way of a block that is filled at
 * once: for the many small values of a write, since a call of the generator costs as much as to seal a
 * document. No byte is given out twice, and none stays behind in the block.
 *
 * For nonces and identifiers. Keys are made by `randomBytes`, without a stop on the way.
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

/** {@link fillRandom} of a new buffer. */
export function smallRandom(bytes: number): Buffer {
  const target = Buffer.allocUnsafe(bytes);
  fillRandom(target);
  return target;
}
