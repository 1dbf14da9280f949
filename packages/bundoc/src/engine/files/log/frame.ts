import assert from 'node:assert/strict';
import {
  BLOCK_BYTES,
  blocksOf,
  endsWithHash,
  HANDLE_BYTES,
  HASH_BYTES,
  ID_BYTES,
  type Place,
  shortHash,
  TAG_BYTES,
} from './layout.ts';

const MAGIC = 0x424c_4631; // "BLF1"
const FIXED_BYTES = 60;
export const ENTRY_BYTES = 64;
const ENTRY_TAG_START = ENTRY_BYTES - TAG_BYTES;
export const REPEAT_BYTES = HANDLE_BYTES + TAG_BYTES;

const PART_KINDS = ['data', 'chunk', 'gone'] as const;
export type PartKind = (typeof PART_KINDS)[number];
/** The numbers of the kinds. No single changed bit turns a part with content into `gone`. */
const KINDS: Readonly<Record<PartKind, number>> = { data: 1, chunk: 2, gone: 4 };

/** A part's entry in the directory of a frame. */
export interface Entry {
  readonly handle: string;
  readonly kind: PartKind;
  /** For `data`: the number of chunks of the same commit directly before it. */
  readonly chunks: number;
  /** The version of the DEK that seals it; 0 for `gone`, which is not sealed. */
  readonly keyVersion: number;
  /** The length of the body, which equals that of the plaintext. */
  readonly bytes: number;
  /** The handle's previous part; undefined for its first. */
  readonly previous: Place | undefined;
}

export interface SealedEntry extends Entry {
  readonly tag: Buffer;
}

/** A copy of one directory line of the previous frame. */
export interface Repeat {
  readonly handle: string;
  readonly tag: Buffer;
}

export interface FrameHead {
  /** From the first byte to the end of the hash, without padding. */
  readonly bytes: number;
  /** The block at which it begins. It increases within a segment, and is the nonce of its parts. */
  readonly number: number;
  /** The previous frame in this segment; 0 for the first. */
  readonly previousNumber: number;
  readonly segment: number;
  readonly segmentId: Buffer;
  readonly previousHash: Buffer;
  readonly entries: readonly SealedEntry[];
  readonly repeats: readonly Repeat[];
}

/** The header fields of a new frame. */
export interface FrameStart {
  readonly number: number;
  readonly previousNumber: number;
  readonly segment: number;
  readonly segmentId: Buffer;
  /**
   * The hash of the previous frame; for the first of a segment, that of the frame in the segment's header.
   */
  readonly previousHash: Buffer;
  readonly repeats: readonly Repeat[];
}

/** Length of a frame, without padding. */
export function frameBytes(parts: number, repeats: number, bodyBytes: number): number {
  return headBytes(parts, repeats) + bodyBytes + HASH_BYTES;
}

/** Length up to the end of the head's hash. */
function headBytes(parts: number, repeats: number): number {
  return FIXED_BYTES + parts * ENTRY_BYTES + repeats * REPEAT_BYTES + HASH_BYTES;
}

/**
 * Composes a frame in a buffer: first the parts, each written into its space by its sealer, then {@link
 * finish}. The next frame reuses the buffer.
 */
export class FrameWriter {
  readonly #buffer: Buffer;
  readonly #start: FrameStart;
  readonly #parts: number;
  #at = 0;
  #bodyStart: number;

  /** @param buffer at least {@link frameBytes} long, rounded up to blocks. */
  constructor(buffer: Buffer, start: FrameStart, parts: number) {
    this.#buffer = buffer;
    this.#start = start;
    this.#parts = parts;
    this.#bodyStart = headBytes(parts, start.repeats.length);
  }

  /**
   * Writes a part's entry without its tag.
   *
   * @returns the entry's bytes up to the tag, and space for the tag and the body. The caller must fill them
   *   immediately.
   */
  part(entry: Entry): { readonly head: Buffer; readonly tag: Buffer; readonly body: Buffer } {
    assert(this.#at < this.#parts, 'the frame has room for as many parts as it was begun with');
    const start = FIXED_BYTES + this.#at++ * ENTRY_BYTES;
    writeEntry(this.#buffer, start, entry);
    const bodyStart = this.#bodyStart;
    this.#bodyStart += entry.bytes;
    return {
      head: this.#buffer.subarray(start, start + ENTRY_TAG_START),
      tag: this.#buffer.subarray(start + ENTRY_TAG_START, start + ENTRY_BYTES),
      body: this.#buffer.subarray(bodyStart, this.#bodyStart),
    };
  }

  /** @returns the whole frame, padded to blocks with zeros, as a view of the buffer; and its hash. */
  finish(): { readonly frame: Buffer; readonly hash: Buffer } {
    assert(this.#at === this.#parts, 'the frame has all the parts that it was begun with');
    const buffer = this.#buffer;
    const { repeats } = this.#start;
    const bytes = this.#bodyStart + HASH_BYTES;
    writeFixed(buffer, this.#start, bytes, this.#parts);
    let at = FIXED_BYTES + this.#parts * ENTRY_BYTES;
    for (const { handle, tag } of repeats) {
      at += buffer.write(handle, at, 'hex');
      at += tag.copy(buffer, at);
    }
    shortHash(buffer.subarray(0, at)).copy(buffer, at);
    const hash = shortHash(buffer.subarray(at, this.#bodyStart));
    hash.copy(buffer, this.#bodyStart);
    const padded = blocksOf(bytes) * BLOCK_BYTES;
    buffer.fill(0, bytes, padded);
    return { frame: buffer.subarray(0, padded), hash };
  }
}

function writeFixed(buffer: Buffer, start: FrameStart, bytes: number, parts: number): void {
  buffer.writeUInt32BE(MAGIC, 0);
  buffer.writeUInt32BE(bytes, 4);
  buffer.writeUInt32BE(start.number, 8);
  buffer.writeUInt32BE(start.previousNumber, 12);
  writeU64(buffer, start.segment, 16);
  start.segmentId.copy(buffer, 24);
  start.previousHash.copy(buffer, 40);
  buffer.writeUInt16BE(parts, 56);
  buffer.writeUInt16BE(start.repeats.length, 58);
}

/** Writes an entry up to its tag, in the form that its seal authenticates. */
function writeEntry(buffer: Buffer, start: number, entry: Entry): void {
  buffer.write(entry.handle, start, 'hex');
  buffer.writeUInt8(KINDS[entry.kind], start + 8);
  buffer.writeUInt8(0, start + 9);
  buffer.writeUInt16BE(entry.chunks, start + 10);
  buffer.writeUInt32BE(entry.keyVersion, start + 12);
  buffer.writeUInt32BE(entry.bytes, start + 16);
  const { previous } = entry;
  writeU64(buffer, previous?.segment ?? 0, start + 20);
  buffer.writeUInt32BE(previous?.frame ?? 0, start + 28);
  if (previous === undefined) buffer.fill(0, start + 32, start + 48);
  else previous.tag.copy(buffer, start + 32);
}

/** @returns undefined unless it is a valid entry. */
export function readEntry(buffer: Buffer, start: number): SealedEntry | undefined {
  const number = buffer.readUInt8(start + 8);
  const kind = PART_KINDS.find((one) => KINDS[one] === number);
  if (kind === undefined) return undefined;
  const segment = readU64(buffer, start + 20);
  return {
    handle: buffer.toString('hex', start, start + HANDLE_BYTES),
    kind,
    chunks: buffer.readUInt16BE(start + 10),
    keyVersion: buffer.readUInt32BE(start + 12),
    bytes: buffer.readUInt32BE(start + 16),
    previous:
      segment === 0
        ? undefined
        : {
            segment,
            frame: buffer.readUInt32BE(start + 28),
            tag: Buffer.from(buffer.subarray(start + 32, start + 48)),
          },
    tag: Buffer.from(buffer.subarray(start + ENTRY_TAG_START, start + ENTRY_BYTES)),
  };
}

/**
 * The length of the head that begins here, if its counts are plausible; undefined when no frame begins here.
 */
export function headBytesAt(block: Buffer): number | undefined {
  if (block.length < FIXED_BYTES || block.readUInt32BE(0) !== MAGIC) return undefined;
  return headBytes(block.readUInt16BE(56), block.readUInt16BE(58));
}

/**
 * Whether a frame of the segment begins at this block, judged only by its number and segment, so that other
 * damage does not matter.
 */
export function beginsAt(bytes: Buffer, block: number, segmentId: Buffer): boolean {
  const start = block * BLOCK_BYTES;
  return (
    start + FIXED_BYTES <= bytes.length &&
    bytes.readUInt32BE(start) === MAGIC &&
    bytes.readUInt32BE(start + 8) === block &&
    segmentId.equals(bytes.subarray(start + 24, start + 24 + ID_BYTES))
  );
}

/**
 * Decodes the head of the frame that begins at `start`.
 *
 * @returns undefined unless a complete, undamaged head is there.
 */
export function decodeHead(bytes: Buffer, start: number): FrameHead | undefined {
  const length = headBytesAt(bytes.subarray(start, start + BLOCK_BYTES));
  if (length === undefined || !endsWithHash(bytes, start, start + length - HASH_BYTES)) return undefined;
  return readHead(bytes, start);
}

/** Whether the frame's hash matches, so that its bodies are undamaged. The head is already checked. */
export function isFrameWhole(bytes: Buffer, start: number, head: FrameHead): boolean {
  const bodies = start + headBytes(head.entries.length, head.repeats.length);
  const end = start + head.bytes - HASH_BYTES;
  return end >= bodies && endsWithHash(bytes, bodies - HASH_BYTES, end);
}

/** The hash at the end of a frame. */
export function hashOfFrame(bytes: Buffer, start: number, head: FrameHead): Buffer {
  const end = start + head.bytes;
  return Buffer.from(bytes.subarray(end - HASH_BYTES, end));
}

function readHead(bytes: Buffer, start: number): FrameHead | undefined {
  const parts = bytes.readUInt16BE(start + 56);
  const repeats = bytes.readUInt16BE(start + 58);
  const entries: SealedEntry[] = [];
  for (let at = 0; at < parts; at++) {
    const entry = readEntry(bytes, start + FIXED_BYTES + at * ENTRY_BYTES);
    if (entry === undefined) return undefined;
    entries.push(entry);
  }
  const repeatsStart = start + FIXED_BYTES + parts * ENTRY_BYTES;
  return {
    bytes: bytes.readUInt32BE(start + 4),
    number: bytes.readUInt32BE(start + 8),
    previousNumber: bytes.readUInt32BE(start + 12),
    segment: readU64(bytes, start + 16),
    segmentId: Buffer.from(bytes.subarray(start + 24, start + 24 + ID_BYTES)),
    previousHash: Buffer.from(bytes.subarray(start + 40, start + 56)),
    entries,
    repeats: Array.from({ length: repeats }, (_, at) => {
      const repeat = repeatsStart + at * REPEAT_BYTES;
      return {
        handle: bytes.toString('hex', repeat, repeat + HANDLE_BYTES),
        tag: Buffer.from(bytes.subarray(repeat + HANDLE_BYTES, repeat + REPEAT_BYTES)),
      };
    }),
  };
}

/** A part's bytes in a frame. */
export interface PartBytes {
  /** The entry with its tag. */
  readonly entry: Buffer;
  /** Offset from the start of the frame. */
  readonly bodyStart: number;
  readonly bodyBytes: number;
}

/**
 * Finds the part of a handle in a head, even if the head's hash does not match. A part is authentic by its
 * own tag, so damage elsewhere does not matter.
 *
 * @param head starts at the frame's first byte, and is as long as {@link headBytesAt} says.
 */
export function findPart(head: Buffer, handle: string): PartBytes | undefined {
  const bytes = Buffer.from(handle, 'hex');
  const parts = head.readUInt16BE(56);
  let bodyStart = headBytes(parts, head.readUInt16BE(58));
  for (let at = 0; at < parts; at++) {
    const start = FIXED_BYTES + at * ENTRY_BYTES;
    const bodyBytes = head.readUInt32BE(start + 16);
    if (bytes.compare(head, start, start + HANDLE_BYTES) === 0)
      return { entry: head.subarray(start, start + ENTRY_BYTES), bodyStart, bodyBytes };
    bodyStart += bodyBytes;
  }
  return undefined;
}

function writeU64(buffer: Buffer, value: number, start: number): void {
  buffer.writeUInt16BE(0, start);
  buffer.writeUIntBE(value, start + 2, 6);
}

function readU64(buffer: Buffer, start: number): number {
  return buffer.readUIntBE(start + 2, 6);
}
