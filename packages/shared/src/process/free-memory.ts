/** Smaller buffers cost the garbage collector little, and may be part of shared memory. */
const WORTH_BYTES = 65_536;

/**
 * Returns the memory of a large buffer at once. Memory outside the heap that waits for collection makes the
 * garbage collector scan the whole heap, again and again, on the event loop's thread.
 *
 * Only the owner may free a buffer, and only once no socket or file still writes it. The buffer is empty
 * afterwards, so accidental use cannot read bytes of others.
 */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (bytes.length < WORTH_BYTES || bytes.length !== buffer.byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}
