import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { NONCE_BYTES, TAG_BYTES } from '@bundoc/shared/aead';
import { COMMIT_BYTES_MAX } from '../port.ts';

/** Frames begin at multiples of this: the unit that disks write whole. */
export const BLOCK_BYTES = 512;
export const SEGMENT_ID_BYTES = 16;
/** `length(4) | number(4) | tag(16)` before the ciphertext. */
const FRAME_HEAD_BYTES = 24;
/** Largest plaintext of one frame, bytes: a commit is in one. */
export const FRAME_BYTES_MAX = COMMIT_BYTES_MAX;

const MAGIC = Buffer.from('BUNDOCJ1', 'latin1');
const HEADER_TAG_START = BLOCK_BYTES - TAG_BYTES;

/** What the first block of a segment says. Byte table: docs/formats/journal.md. */
export interface SegmentHeader {
  readonly keyVersion: number;
  /** Random, new at every use of the segment, so that no frame key is ever used for two lives of it. */
  readonly id: Buffer;
  readonly number: number;
  /** Id and last tag of the segment before: whatever is missing between the two is noticed. Zeros if there is none. */
  readonly previousId: Buffer;
  readonly previousTag: Buffer;
}

/** One use of a segment: its header block and the key that is derived for its id. */
export interface SegmentSeal {
  readonly key: KeyObject;
  readonly headerBlock: Buffer;
}

/** The nonce is a count: the key belongs to one use of one segment. Number 0 authenticates the header. */
function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32BE(number, NONCE_BYTES - 4);
  return nonce;
}

/** The first block of a segment, authenticated under its key. */
export function encodeHeader(key: KeyObject, header: SegmentHeader): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  MAGIC.copy(block, 0);
  block.writeUInt32BE(header.keyVersion, 8);
  header.id.copy(block, 12);
  block.writeBigUInt64BE(BigInt(header.number), 28);
  header.previousId.copy(block, 36);
  header.previousTag.copy(block, 52);
  headerTag(key, block).copy(block, HEADER_TAG_START);
  return block;
}

/** Reads a header without checking its tag, since the key depends on what it says; undefined for other bytes. */
export function parseHeader(block: Buffer): SegmentHeader | undefined {
  if (block.length < BLOCK_BYTES || !block.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  return {
    keyVersion: block.readUInt32BE(8),
    id: Buffer.from(block.subarray(12, 28)),
    number: Number(block.readBigUInt64BE(28)),
    previousId: Buffer.from(block.subarray(36, 52)),
    previousTag: Buffer.from(block.subarray(52, 68)),
  };
}

/** True when the header block is whole and was made under this key. */
export function isHeaderAuthentic(key: KeyObject, block: Buffer): boolean {
  return headerTag(key, block).equals(block.subarray(HEADER_TAG_START, BLOCK_BYTES));
}

function headerTag(key: KeyObject, block: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, nonceOf(0), { authTagLength: TAG_BYTES });
  cipher.setAAD(block.subarray(0, HEADER_TAG_START));
  cipher.final();
  return cipher.getAuthTag();
}

/** Bytes that a frame of this plaintext takes in its segment. */
export function frameBytes(plaintextBytes: number): number {
  return Math.ceil((FRAME_HEAD_BYTES + plaintextBytes) / BLOCK_BYTES) * BLOCK_BYTES;
}

function frameAad(seal: SegmentSeal, number: number, length: number): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(number, 0);
  tail.writeUInt32BE(length, 4);
  return Buffer.concat([seal.headerBlock, tail]);
}

/** Seals one frame, padded to whole blocks. `number` counts from 1 and is never used twice in a segment. */
export function encodeFrame(seal: SegmentSeal, number: number, plaintext: readonly Buffer[]): Buffer {
  const length = plaintext.reduce((sum, part) => sum + part.length, 0);
  assert(length <= FRAME_BYTES_MAX, 'a longer frame would not be read again');
  const frame = Buffer.alloc(frameBytes(length));
  const cipher = createCipheriv('aes-256-gcm', seal.key, nonceOf(number), { authTagLength: TAG_BYTES });
  cipher.setAAD(frameAad(seal, number, length));
  let at = FRAME_HEAD_BYTES;
  for (const part of plaintext) at += cipher.update(part).copy(frame, at);
  cipher.final();
  frame.writeUInt32BE(length, 0);
  frame.writeUInt32BE(number, 4);
  cipher.getAuthTag().copy(frame, 8);
  return frame;
}

export interface Frame {
  readonly number: number;
  readonly plaintext: Buffer;
  readonly tag: Buffer;
  /** Offset behind the frame. */
  readonly end: number;
}

/** The frame at an offset, or undefined when no whole, authentic frame of this segment begins there. */
export function decodeFrame(seal: SegmentSeal, segment: Buffer, at: number): Frame | undefined {
  if (at + FRAME_HEAD_BYTES > segment.length) return undefined;
  const length = segment.readUInt32BE(at);
  const number = segment.readUInt32BE(at + 4);
  const start = at + FRAME_HEAD_BYTES;
  if (number === 0 || length > FRAME_BYTES_MAX || start + length > segment.length) return undefined;
  const tag = segment.subarray(at + 8, start);
  const decipher = createDecipheriv('aes-256-gcm', seal.key, nonceOf(number), { authTagLength: TAG_BYTES });
  decipher.setAAD(frameAad(seal, number, length));
  decipher.setAuthTag(tag);
  const plaintext = decipher.update(segment.subarray(start, start + length));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return { number, plaintext, tag: Buffer.from(tag), end: at + frameBytes(length) };
}
