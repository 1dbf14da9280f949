import { randomFillSync } from 'node:crypto';
// Not the global one, which tests fake.
import { setImmediate } from 'node:timers';

/** Bytes that a turn of the event loop reads at first: the random values of some sixteen documents. */
const FIRST_BYTES = 512;
/** Bytes that it reads each further time. */
const BLOCK_BYTES = 4_096;

let block = Buffer.alloc(0);
/** The unused bytes of the block. Used ones are wiped. */
let start = 0;
let end = 0;
/** Whether this turn has read ahead, and its bytes will be wiped. */
let isWipeDue = false;

/**
 * Fills `target` with secure random bytes from a block that is filled in one call. It is for the many small
 * values of a write, because one call of the system's generator costs as much as sealing a document. No byte
 * is used twice, and used bytes are wiped from the block.
 *
 * No byte is kept beyond the turn of the event loop that read it. So a snapshot of a virtual machine that is
 * taken while the process waits holds no byte that every resumed copy would use.
 *
 * For nonces and identifiers. Keys come directly from `randomBytes`.
 */
export function fillRandom(target: Uint8Array): void {
  if (target.length > BLOCK_BYTES) {
    randomFillSync(target);
    return;
  }
  if (end - start < target.length) refill(target.length);
  target.set(block.subarray(start, start + target.length));
  block.fill(0, start, start + target.length);
  start += target.length;
}

/** {@link fillRandom} for a new buffer. */
export function smallRandom(bytes: number): Buffer {
  const target = Buffer.allocUnsafe(bytes);
  fillRandom(target);
  return target;
}

function refill(bytesMin: number): void {
  if (block.length === 0) block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  block.fill(0, start, end);
  [start, end] = [0, 0];
  const bytes = Math.max(isWipeDue ? BLOCK_BYTES : FIRST_BYTES, bytesMin);
  randomFillSync(block, 0, bytes);
  end = bytes;
  if (isWipeDue) return;
  isWipeDue = true;
  // It delays the end of the process by one turn at most. One that did not would run only when something else
  // happens, and the bytes would lie there while the process waits.
  setImmediate(wipe);
}

function wipe(): void {
  block.fill(0, start, end);
  [start, end] = [0, 0];
  isWipeDue = false;
}
