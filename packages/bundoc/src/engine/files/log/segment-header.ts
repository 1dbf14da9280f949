import assert from 'node:assert/strict';
import {
  BLOCK_BYTES,
  blocksOf,
  type FramePlace,
  HANDLE_BYTES,
  HASH_BYTES,
  ID_BYTES,
  type Place,
  shortHash,
  TAG_BYTES,
} from './layout.ts';

export const INDEX_ENTRY_BYTES = HANDLE_BYTES + 1 + 4 + 4 + TAG_BYTES + 6;
/** A handle, and the segment, frame and tag of its last part, which was freed. */
export const REMEMBERED_BYTES = HANDLE_BYTES + 6 + 4 + TAG_BYTES;
const GONE = 1;

const MAGIC = 'BUNDOCL3';
/** The magic of logs of earlier builds. */
const FORMER_MAGIC = /^BUNDOCL[12]$/;
/** The header's block has two copies. */
const COPIES = [0, BLOCK_BYTES / 2] as const;
/** Bytes of a copy, before its hash. */
const COPY_BYTES = 152;
const NUMBER_START = 24;
const ID_START = 32;
const FIRST_LIVE_START = 48;
const INDEX_HASH_START = 104;

/** The last valid frame before a segment; later frames of the previous segment never happened. */
export interface Cut extends FramePlace {
  readonly segmentId: Buffer;
  readonly hash: Buffer;
}

/** The content of a segment's first block. Byte table: docs/formats/log.md. */
export interface SegmentHeader {
  readonly storageId: Buffer;
  readonly number: number;
  /** Random, new at every use of the file, so that no key of a part serves two uses. */
  readonly id: Buffer;
  /** Segments before this one are free. */
  readonly firstLive: number;
  /** Undefined for the first segment of a log. */
  readonly cut: Cut | undefined;
  /**
   * The last lost frame whose handles are unknown; undefined when there is none or its loss is accepted. A
   * handle without a later part may have lost its last parts. Earlier such frames are not recorded: the last
   * one covers them.
   */
  readonly hole: FramePlace | undefined;
}

/** The parts of one handle in one segment. */
export interface SegmentIndexEntry {
  readonly handle: string;
  /** Whether its last part here ends it. */
  readonly isGone: boolean;
  readonly firstFrame: number;
  readonly last: Place;
  /** Bytes of its bodies. */
  readonly bytes: number;
}

/** A decoded header. */
export interface FoundHeader extends SegmentHeader {
  readonly indexBytes: number;
  readonly indexHash: Buffer;
  readonly rememberedBytes: number;
  readonly rememberedHash: Buffer;
  /** The block of the first frame. */
  readonly firstFrame: number;
}

/**
 * The blocks at the start of a segment: the header, the index of the segment that its cut names, and the
 * handles that the log remembers from here on.
 *
 * @param remembered entries of {@link REMEMBERED_BYTES}.
 */
export function encodeHeader(
  header: SegmentHeader,
  index: readonly SegmentIndexEntry[],
  remembered: Buffer,
): Buffer {
  const indexBytes = index.length * INDEX_ENTRY_BYTES;
  const rememberedBytes = remembered.length;
  const blocks = Buffer.alloc(BLOCK_BYTES * (1 + blocksOf(indexBytes + rememberedBytes)));
  const indexEnd = BLOCK_BYTES + indexBytes;
  for (const [at, entry] of index.entries())
    writeIndexEntry(blocks, BLOCK_BYTES + at * INDEX_ENTRY_BYTES, entry);
  remembered.copy(blocks, indexEnd);
  const copy = encodeCopy(header, {
    indexBytes,
    indexHash: shortHash(blocks.subarray(BLOCK_BYTES, indexEnd)),
    rememberedBytes,
    rememberedHash: shortHash(remembered),
  });
  for (const start of COPIES) copy.copy(blocks, start);
  return blocks;
}

type Tables = Pick<FoundHeader, 'indexBytes' | 'indexHash' | 'rememberedBytes' | 'rememberedHash'>;

function encodeCopy(header: SegmentHeader, tables: Tables): Buffer {
  const bytes = Buffer.alloc(COPY_BYTES + HASH_BYTES);
  bytes.write(MAGIC, 'latin1');
  header.storageId.copy(bytes, 8);
  bytes.writeBigUInt64BE(BigInt(header.number), NUMBER_START);
  header.id.copy(bytes, ID_START);
  bytes.writeBigUInt64BE(BigInt(header.firstLive), FIRST_LIVE_START);
  if (header.cut !== undefined) {
    bytes.writeBigUInt64BE(BigInt(header.cut.segment), 56);
    header.cut.segmentId.copy(bytes, 64);
    bytes.writeUInt32BE(header.cut.frame, 80);
    header.cut.hash.copy(bytes, 84);
  }
  bytes.writeUInt32BE(tables.indexBytes, 100);
  tables.indexHash.copy(bytes, INDEX_HASH_START);
  if (header.hole !== undefined) {
    bytes.writeBigUInt64BE(BigInt(header.hole.segment), 120);
    bytes.writeUInt32BE(header.hole.frame, 128);
  }
  bytes.writeUInt32BE(tables.rememberedBytes, 132);
  tables.rememberedHash.copy(bytes, 136);
  shortHash(bytes.subarray(0, COPY_BYTES)).copy(bytes, COPY_BYTES);
  return bytes;
}

/**
 * Changes the first live segment in the first block of a segment. The log that a restore makes begins at
 * another segment than the log that the header comes from.
 */
export function setFirstLive(block: Buffer, firstLive: number): void {
  for (const start of COPIES) {
    if (decodeCopy(block, start) === undefined) continue;
    block.writeBigUInt64BE(BigInt(firstLive), start + FIRST_LIVE_START);
    shortHash(block.subarray(start, start + COPY_BYTES)).copy(block, start + COPY_BYTES);
  }
}

/**
 * Lets a start read the frames of the segment that a header's cut names, when it has left out their index
 * because that segment was free, and in a restored log it is not.
 */
export function reviveIndex(block: Buffer, firstLive: number): void {
  for (const start of COPIES) {
    const copy = decodeCopy(block, start);
    const cut = copy?.cut?.segment;
    if (copy === undefined || cut === undefined || cut < firstLive || cut >= copy.firstLive) continue;
    const hash = start + INDEX_HASH_START;
    block.writeUInt8(block.readUInt8(hash) ^ 0xff, hash);
    shortHash(block.subarray(start, start + COPY_BYTES)).copy(block, start + COPY_BYTES);
  }
}

/** Whether the first block of a file is that of a log that an earlier build wrote. */
export function isFormerSegment(block: Buffer): boolean {
  return FORMER_MAGIC.test(block.toString('latin1', 0, MAGIC.length));
}

/** Decodes the header of a segment; undefined when both copies are damaged. */
export function decodeHeader(block: Buffer): FoundHeader | undefined {
  const copies = COPIES.map((start) => decodeCopy(block, start)).filter((copy) => copy !== undefined);
  // A crash may leave one copy from the file's previous use: the later one wins.
  return copies.sort((a, b) => b.number - a.number)[0];
}

function decodeCopy(block: Buffer, start: number): FoundHeader | undefined {
  const copy = block.subarray(start, start + BLOCK_BYTES / 2);
  if (copy.toString('latin1', 0, MAGIC.length) !== MAGIC) return undefined;
  if (!shortHash(copy.subarray(0, COPY_BYTES)).equals(copy.subarray(COPY_BYTES, COPY_BYTES + HASH_BYTES)))
    return undefined;
  const cutSegment = Number(copy.readBigUInt64BE(56));
  const indexBytes = copy.readUInt32BE(100);
  const rememberedBytes = copy.readUInt32BE(132);
  const holeSegment = Number(copy.readBigUInt64BE(120));
  return {
    storageId: Buffer.from(copy.subarray(8, 24)),
    number: Number(copy.readBigUInt64BE(NUMBER_START)),
    id: Buffer.from(copy.subarray(ID_START, ID_START + ID_BYTES)),
    firstLive: Number(copy.readBigUInt64BE(FIRST_LIVE_START)),
    cut:
      cutSegment === 0
        ? undefined
        : {
            segment: cutSegment,
            segmentId: Buffer.from(copy.subarray(64, 80)),
            frame: copy.readUInt32BE(80),
            hash: Buffer.from(copy.subarray(84, 100)),
          },
    hole: holeSegment === 0 ? undefined : { segment: holeSegment, frame: copy.readUInt32BE(128) },
    indexBytes,
    indexHash: Buffer.from(copy.subarray(INDEX_HASH_START, INDEX_HASH_START + HASH_BYTES)),
    rememberedBytes,
    rememberedHash: Buffer.from(copy.subarray(136, 152)),
    firstFrame: 1 + blocksOf(indexBytes + rememberedBytes),
  };
}

function writeIndexEntry(target: Buffer, start: number, entry: SegmentIndexEntry): void {
  target.write(entry.handle, start, 'hex');
  target.writeUInt8(entry.isGone ? GONE : 0, start + 8);
  target.writeUInt32BE(entry.firstFrame, start + 9);
  target.writeUInt32BE(entry.last.frame, start + 13);
  entry.last.tag.copy(target, start + 17);
  target.writeUIntBE(entry.bytes, start + 33, 6);
}

/** Whether the bytes after the index are the handles that the header remembers. */
export function isRemembered({ rememberedBytes, rememberedHash }: FoundHeader, bytes: Buffer): boolean {
  return (
    bytes.length === rememberedBytes &&
    rememberedBytes % REMEMBERED_BYTES === 0 &&
    shortHash(bytes).equals(rememberedHash)
  );
}

/**
 * Decodes the index after a header, which belongs to the segment that the header's cut names.
 *
 * @returns undefined when it is damaged.
 */
export function decodeIndex(header: FoundHeader, bytes: Buffer): SegmentIndexEntry[] | undefined {
  const { indexBytes, indexHash, cut } = header;
  if (bytes.length < indexBytes || indexBytes % INDEX_ENTRY_BYTES !== 0 || cut === undefined)
    return undefined;
  const index = bytes.subarray(0, indexBytes);
  if (!shortHash(index).equals(indexHash)) return undefined;
  const entries: SegmentIndexEntry[] = [];
  for (let at = 0; at < indexBytes; at += INDEX_ENTRY_BYTES) {
    entries.push({
      handle: index.toString('hex', at, at + HANDLE_BYTES),
      isGone: index.readUInt8(at + 8) === GONE,
      firstFrame: index.readUInt32BE(at + 9),
      last: {
        segment: cut.segment,
        frame: index.readUInt32BE(at + 13),
        tag: Buffer.from(index.subarray(at + 17, at + 33)),
      },
      bytes: index.readUIntBE(at + 33, 6),
    });
  }
  assert(entries.length * INDEX_ENTRY_BYTES === indexBytes, 'the index ends with an entry');
  return entries;
}
