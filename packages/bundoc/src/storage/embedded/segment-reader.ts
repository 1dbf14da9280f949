import { TAG_BYTES } from '@bundoc/shared/aead';
import { BLOCK_BYTES, decodeFrame, type SegmentHeader, type SegmentSeal } from './frame.ts';

/** Committed bytes are missing or damaged: the project must not be opened as if they had never been. */
export class JournalCorrupt extends Error {
  override readonly name = 'JournalCorrupt';
}

export interface SegmentContent {
  /** Plaintexts of the frames, in order. */
  readonly frames: readonly Buffer[];
  /** Tag of the last whole frame; zeros if there is none. */
  readonly lastTag: Buffer;
  /** Offset behind that frame. */
  readonly end: number;
}

/**
 * Reads the whole frames of a segment. The first one that is not whole ends it: with one frame in flight at a time, it
 * is the one that a crash tore, and it was never acknowledged.
 *
 * @throws JournalCorrupt when a whole frame lies behind it: then the damaged one had been acknowledged.
 */
export function readSegment(header: SegmentHeader, seal: SegmentSeal, bytes: Buffer): SegmentContent {
  const frames: Buffer[] = [];
  let lastTag: Buffer = Buffer.alloc(TAG_BYTES);
  let at = BLOCK_BYTES;
  for (;;) {
    const frame = decodeFrame(seal, bytes, at);
    if (frame === undefined || frame.number !== frames.length + 1) break;
    frames.push(frame.plaintext);
    lastTag = frame.tag;
    at = frame.end;
  }
  for (let later = at; later + BLOCK_BYTES <= bytes.length; later += BLOCK_BYTES) {
    if (!looksLikeFrame(bytes, later, frames.length + 1)) continue;
    const frame = decodeFrame(seal, bytes, later);
    if (frame !== undefined && frame.number > frames.length)
      throw new JournalCorrupt(
        `segment ${header.number}: frame ${frames.length + 1} is damaged, and frame ${frame.number} follows it`,
      );
  }
  return { frames, lastTag, end: at };
}

/** Spares the decryption of what cannot be a later frame, since free space is long. */
function looksLikeFrame(bytes: Buffer, at: number, numberMin: number): boolean {
  const number = bytes.readUInt32BE(at + 4);
  return (
    number >= numberMin && number <= numberMin + bytes.length / BLOCK_BYTES && bytes.readUInt32BE(at) > 0
  );
}
