import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const CHUNK_BYTES = 1 << 20;

/** Whether the memory of a process of this user contains these bytes. On Linux. */
export function memoryHolds(pid: number, bytes: Buffer): boolean {
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  // The end of one part is searched again with the next one.
  const part = Buffer.alloc(CHUNK_BYTES + bytes.length);
  try {
    for (const [start, end] of writableRegions(pid))
      for (let at = start; at < end; at += CHUNK_BYTES) {
        const length = Math.min(part.length, end - at);
        const read = tryRead(memory, part.subarray(0, length), at);
        if (part.subarray(0, read).includes(bytes)) return true;
      }
    return false;
  } finally {
    closeSync(memory);
  }
}

function writableRegions(pid: number): (readonly [number, number])[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm);
  return Array.from(lines, ([, start = '', end = '']) => [
    Number.parseInt(start, 16),
    Number.parseInt(end, 16),
  ]);
}

/** A region may have gone since it was listed. */
function tryRead(memory: number, into: Buffer, at: number): number {
  try {
    return readSync(memory, into, 0, into.length, at);
  } catch {
    return 0;
  }
}
