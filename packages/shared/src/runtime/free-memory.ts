/** Smaller buffers cost the garbage collector little, and may lie in memory that others use as well. */
const WORTH_BYTES = 65_536;

/**
 * Gives the memory of a large buffer back at once. Memory outside the heap that waits for the garbage
 * collector makes it look at the whole heap, again and again, on the thread of the event loop.
 *
 * Only its owner may free a buffer, and nothing that still writes it to a socket or a file may hold it. It is
 * empty afterwards: a use by mistake finds no bytes of anybody else.
 */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (bytes.length < WORTH_BYTES || bytes.length !== buffer.byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}
