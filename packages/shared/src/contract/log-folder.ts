import { hash } from 'node:crypto';

// The part of Bundoc's log (the folder `data/log`) that BunKMS reads. Byte tables: docs/formats/log.md.

export const LOG_FOLDER = 'log';
/** In that folder. It names the newest segment at a moment when every project's folder was durable. */
export const SETTLED_FILE = 'settled';

export const SEGMENT_MAGIC = 'BUNDOCL2';
/** The first block of a segment, which has two copies of its header. */
export const HEADER_BLOCK_BYTES = 4_096;
export const HEADER_COPIES = [0, HEADER_BLOCK_BYTES / 2] as const;
/** Bytes of a copy, before its hash. */
export const HEADER_COPY_BYTES = 152;
export const SEGMENT_NUMBER_START = 24;
export const SEGMENT_ID_START = 32;
const SEGMENT_ID_BYTES = 16;
const HASH_BYTES = 16;

const SETTLED_MAGIC = 'BUNDOCS1';
const SETTLED_NUMBER_START = SETTLED_MAGIC.length;
const SETTLED_ID_START = SETTLED_NUMBER_START + 8;
const SETTLED_HASH_START = SETTLED_ID_START + SEGMENT_ID_BYTES;
export const SETTLED_BYTES = SETTLED_HASH_START + HASH_BYTES;

/** One use of a segment's file. */
export interface SegmentUse {
  readonly number: number;
  readonly id: Buffer;
}

export function isSegmentFile(name: string): boolean {
  return /^\d{8}$/.test(name);
}

/** The content of {@link SETTLED_FILE}. */
export function encodeSettled({ number, id }: SegmentUse): Buffer {
  const bytes = Buffer.alloc(SETTLED_BYTES);
  bytes.write(SETTLED_MAGIC, 'latin1');
  bytes.writeBigUInt64BE(BigInt(number), SETTLED_NUMBER_START);
  id.copy(bytes, SETTLED_ID_START);
  hashOf(bytes, 0, SETTLED_HASH_START).copy(bytes, SETTLED_HASH_START);
  return bytes;
}

/** @returns undefined for anything but a complete file of this kind. */
export function decodeSettled(bytes: Buffer): SegmentUse | undefined {
  if (bytes.length !== SETTLED_BYTES || !bytes.toString('latin1').startsWith(SETTLED_MAGIC)) return undefined;
  if (!hashOf(bytes, 0, SETTLED_HASH_START).equals(bytes.subarray(SETTLED_HASH_START))) return undefined;
  return {
    number: Number(bytes.readBigUInt64BE(SETTLED_NUMBER_START)),
    id: Buffer.from(bytes.subarray(SETTLED_ID_START, SETTLED_HASH_START)),
  };
}

/** Whether a complete copy of a segment's header begins at `start`. */
export function isHeaderCopy(block: Buffer, start: number): boolean {
  const end = start + HEADER_COPY_BYTES;
  return (
    end + HASH_BYTES <= block.length &&
    block.toString('latin1', start, start + SEGMENT_MAGIC.length) === SEGMENT_MAGIC &&
    hashOf(block, start, end).equals(block.subarray(end, end + HASH_BYTES))
  );
}

function hashOf(bytes: Buffer, start: number, end: number): Buffer {
  return hash('sha256', bytes.subarray(start, end), 'buffer').subarray(0, HASH_BYTES);
}

/** The folder of a log. */
export interface LogFolderReader {
  /** Names in it; undefined when there is no such folder. */
  list(): readonly string[] | undefined;
  /** The first bytes of a file in it, fewer when it is shorter; undefined when there is no such file. */
  readStart(name: string, bytes: number): Buffer | undefined;
}

/**
 * Whether the folder of every project was durable when the newest segment began. If not, a new project may
 * exist only in the log, and a reader of the project folders would miss it.
 *
 * A log that is unreadable or damaged counts as `unsettled`.
 */
export function settledState(folder: LogFolderReader): 'no log' | 'settled' | 'unsettled' {
  const names = (folder.list() ?? []).filter(isSegmentFile);
  if (names.length === 0) return 'no log';
  let newest: SegmentUse | undefined;
  for (const name of names) {
    const block = folder.readStart(name, HEADER_BLOCK_BYTES);
    if (block === undefined) return 'unsettled';
    const uses = HEADER_COPIES.filter((start) => isHeaderCopy(block, start)).map((start) =>
      useAt(block, start),
    );
    // A file that was never used has zeros there. Anything else is a damaged header.
    if (uses.length === 0 && block.some((byte) => byte !== 0)) return 'unsettled';
    for (const use of uses) if (newest === undefined || use.number > newest.number) newest = use;
  }
  const settled = decodeSettled(folder.readStart(SETTLED_FILE, SETTLED_BYTES + 1) ?? Buffer.alloc(0));
  if (newest === undefined || settled === undefined) return 'unsettled';
  return settled.number === newest.number && settled.id.equals(newest.id) ? 'settled' : 'unsettled';
}

function useAt(block: Buffer, start: number): SegmentUse {
  const id = start + SEGMENT_ID_START;
  return {
    number: Number(block.readBigUInt64BE(start + SEGMENT_NUMBER_START)),
    id: Buffer.from(block.subarray(id, id + SEGMENT_ID_BYTES)),
  };
}
