import { ENTRY_BYTES, readEntry } from './frame.ts';
import {
  comparePlaces,
  endsWithHash,
  type FramePlace,
  HANDLE_BYTES,
  HASH_BYTES,
  ID_BYTES,
  type Place,
  shortHash,
  TAG_BYTES,
} from './layout.ts';
import { PartsDamaged, type SealedPart } from './sealed-part.ts';

const MAGIC = Buffer.from('BUNDOCP2', 'latin1');
const HANDLE_START = MAGIC.length + ID_BYTES;
const SEGMENT_START = HANDLE_START + HANDLE_BYTES;
const SEGMENT_ID_START = SEGMENT_START + 8;
const NEWEST_START = SEGMENT_ID_START + ID_BYTES;
const COUNT_START = NEWEST_START + 4 + TAG_BYTES;
const HEAD_BYTES = COUNT_START + 4;

/** Parts of one handle from one segment, with their seals unchanged. Byte table: docs/formats/log.md. */
export interface Carried {
  /** The storage of the original log. The parts authenticate it, so they also open in another data folder. */
  readonly storageId: Buffer;
  readonly handle: string;
  readonly segment: number;
  readonly segmentId: Buffer;
  /** The handle's last part in the segment, readable or not. */
  readonly newest: Place;
  readonly parts: readonly SealedPart[];
}

/** Encodes a carried file. It needs no key, because entries and bodies are copied unchanged. */
export function encodeCarried({ storageId, handle, segment, segmentId, newest, parts }: Carried): Buffer {
  const bytes = parts.reduce((sum, { body }) => sum + 4 + ENTRY_BYTES + body.length, HEAD_BYTES);
  const file = Buffer.alloc(bytes + HASH_BYTES);
  let at = MAGIC.copy(file, 0);
  at += storageId.copy(file, at);
  at += file.write(handle, at, 'hex');
  at = file.writeBigUInt64BE(BigInt(segment), at);
  at += segmentId.copy(file, at);
  at = file.writeUInt32BE(newest.frame, at);
  at += newest.tag.copy(file, at);
  at = file.writeUInt32BE(parts.length, at);
  for (const { place, head, body } of parts) {
    at = file.writeUInt32BE(place.frame, at);
    at += head.copy(file, at);
    at += body.copy(file, at);
  }
  shortHash(file.subarray(0, at)).copy(file, at);
  return file;
}

/**
 * Whether the last part in a carried file is at or before a place. False for a damaged file, so that it
 * stays.
 */
export function isCarriedUpTo(file: Buffer, covered: FramePlace): boolean {
  try {
    return comparePlaces(decodeCarried(file).newest, covered) <= 0;
  } catch (error) {
    if (error instanceof PartsDamaged) return false;
    throw error;
  }
}

/** @throws PartsDamaged unless it is a complete carried file. */
export function decodeCarried(file: Buffer): Carried {
  const end = file.length - HASH_BYTES;
  if (end < HEAD_BYTES || !file.subarray(0, MAGIC.length).equals(MAGIC) || !endsWithHash(file, 0, end))
    throw new PartsDamaged('a file of parts that were carried out of the log is damaged');
  const storageId = Buffer.from(file.subarray(MAGIC.length, HANDLE_START));
  const segment = Number(file.readBigUInt64BE(SEGMENT_START));
  const segmentId = Buffer.from(file.subarray(SEGMENT_ID_START, NEWEST_START));
  const newest = {
    segment,
    frame: file.readUInt32BE(NEWEST_START),
    tag: Buffer.from(file.subarray(NEWEST_START + 4, COUNT_START)),
  };
  const parts: SealedPart[] = [];
  let at = HEAD_BYTES;
  for (let left = file.readUInt32BE(COUNT_START); left > 0; left--) {
    const frame = file.readUInt32BE(at);
    const head = file.subarray(at + 4, at + 4 + ENTRY_BYTES);
    const entry = readEntry(head, 0);
    if (entry === undefined) throw new PartsDamaged('a carried part has an unknown kind');
    at += 4 + ENTRY_BYTES;
    const body = file.subarray(at, at + entry.bytes);
    at += entry.bytes;
    parts.push({ place: { segment, frame, tag: entry.tag }, storageId, segmentId, head, entry, body });
  }
  const handle = file.toString('hex', HANDLE_START, SEGMENT_START);
  return { storageId, handle, segment, segmentId, newest, parts };
}
