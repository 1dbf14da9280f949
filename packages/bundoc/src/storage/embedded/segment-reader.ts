import { BLOCK_BYTES, decodeFrame, type Frame, type SegmentSeal } from './frame.ts';

/** Committed bytes are missing or damaged: the project must not be opened as if they had never been. */
export class JournalCorrupt extends Error {
  override readonly name = 'JournalCorrupt';
}

/**
 * Gives the whole frames of a segment, in their order. Numbers that are left out are damage: with one frame in flight at a
 * time, the one that a crash tore is the last and has nothing behind it.
 */
export function* scanSegment(seal: SegmentSeal, bytes: Buffer): Generator<Frame> {
  let next = 1;
  for (let at = BLOCK_BYTES; at + BLOCK_BYTES <= bytes.length; ) {
    const frame = looksLikeFrame(bytes, at, next) ? decodeFrame(seal, bytes, at) : undefined;
    if (frame === undefined) {
      at += BLOCK_BYTES;
      continue;
    }
    yield frame;
    next = frame.number + 1;
    at = frame.end;
  }
}

/** Spares the decryption of what cannot be a later frame, since free space is long. */
function looksLikeFrame(bytes: Buffer, at: number, numberMin: number): boolean {
  const number = bytes.readUInt32BE(at + 4);
  return (
    number >= numberMin && number <= numberMin + bytes.length / BLOCK_BYTES && bytes.readUInt32BE(at) > 0
  );
}
