import { hash } from 'node:crypto';

/** Frames and headers begin at multiples of this: the page size of a file system. */
export const BLOCK_BYTES = 4_096;
export const ID_BYTES = 16;
export const HASH_BYTES = 16;
export const TAG_BYTES = 16;
/** Hex digits of a handle: 8 random bytes, new for every arrival of a project in the data folder. */
const HANDLE_DIGITS = 16;
export const HANDLE_BYTES = HANDLE_DIGITS / 2;

/** Maximum bytes of bodies in one frame. */
export const FRAME_BODY_BYTES_MAX = 1_048_576;
/** Maximum parts of one frame, so that its directory stays below 400 KiB. */
export const FRAME_PARTS_MAX = 4_096;
/** A longer commit is sealed in chunks of this length, one chunk in each frame. */
export const CHUNK_BYTES = 262_144;

/**
 * The place of a frame. Numbers of segments increase; a frame's number is the block of its segment at which
 * it begins.
 */
export interface FramePlace {
  readonly segment: number;
  readonly frame: number;
}

/** The place of a part, and its GCM tag, which the next part of its handle repeats. */
export interface Place extends FramePlace {
  readonly tag: Buffer;
}

/** Negative when `a` was written before `b`. */
export function comparePlaces(a: FramePlace, b: FramePlace): number {
  return a.segment - b.segment || a.frame - b.frame;
}

export function isSamePlace(a: Place, b: Place): boolean {
  return comparePlaces(a, b) === 0 && a.tag.equals(b.tag);
}

/** Number of whole blocks for this many bytes. */
export function blocksOf(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES);
}

/** The first 16 bytes of SHA-256: reveals damage without a key. Whatever must not be forged is sealed. */
export function shortHash(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer').subarray(0, HASH_BYTES);
}

/** Whether `bytes` from `start` are followed at `end` by their own hash. */
export function endsWithHash(bytes: Buffer, start: number, end: number): boolean {
  return (
    end + HASH_BYTES <= bytes.length &&
    shortHash(bytes.subarray(start, end)).equals(bytes.subarray(end, end + HASH_BYTES))
  );
}
