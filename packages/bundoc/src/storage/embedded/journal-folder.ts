import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/errors';
import type { Disk } from './disk.ts';
import {
  BLOCK_BYTES,
  FRAME_BYTES_MAX,
  frameBytes,
  isHeaderAuthentic,
  parseHeader,
  type SegmentHeader,
  type SegmentSeal,
} from './frame.ts';
import type { JournalKeys, JournalStart, SegmentEnd } from './journal.ts';
import { scanSegment } from './segment-reader.ts';

/** The header, and the block in which the first frame begins. */
const LEAD_BYTES = 2 * BLOCK_BYTES;
/** More than a segment has that was made for the largest frame. */
const SEGMENT_BYTES_MAX = 2 * FRAME_BYTES_MAX;
/** As the journal names its files. */
const SEGMENT_NAME = /^\d{8,15}$/;

export interface SegmentOnDisk {
  readonly header: SegmentHeader;
  readonly seal: SegmentSeal;
  readonly bytes: Buffer;
  readonly path: string;
}

/** What lies in a journal's folder, before anything is said about what of it counts. */
export interface JournalFolder {
  /** False when there is no such folder. */
  readonly exists: boolean;
  /** Segments whose header is whole, by number. */
  readonly segments: ReadonlyMap<number, SegmentOnDisk>;
  /** Segments without a header and without a frame: free, and clean. */
  readonly blank: readonly { readonly path: string; readonly bytes: number }[];
  /** Files that are too short for a segment: their creation was cut short. */
  readonly stubs: readonly string[];
  /** Files whose header is not whole although a frame follows it, and what is no regular file, or too large for a segment. */
  readonly beheaded: readonly { readonly name: string; readonly path: string }[];
  /** Number of the next file that is made. */
  readonly nextFile: number;
}

/** Reads a journal's folder and changes nothing in it. */
export async function readJournalFolder(
  disk: Disk,
  directory: string,
  keys: JournalKeys,
): Promise<JournalFolder> {
  const names = await disk.list(directory);
  const segments = new Map<number, SegmentOnDisk>();
  const blank: { path: string; bytes: number }[] = [];
  const stubs: string[] = [];
  const beheaded: { name: string; path: string }[] = [];
  let nextFile = 0;
  for (const name of (names ?? []).sort()) {
    const path = join(directory, name);
    nextFile = Math.max(nextFile, (SEGMENT_NAME.test(name) ? Number(name) : 0) + 1);
    const bytes = await readSegment(disk, path);
    if (bytes === 'unsafe') {
      beheaded.push({ name, path });
      continue;
    }
    if (bytes.length < LEAD_BYTES) {
      stubs.push(path);
      continue;
    }
    const header = parseHeader(bytes);
    const key = header === undefined ? undefined : keys.frameKey(header.keyVersion, header.id);
    const headerBlock = Buffer.from(bytes.subarray(0, BLOCK_BYTES));
    if (header !== undefined && key !== undefined && isHeaderAuthentic(key, headerBlock))
      segments.set(header.number, { header, seal: { key, headerBlock }, bytes, path });
    else if (isFirstFrameWiped(bytes)) blank.push({ path, bytes: bytes.length });
    else beheaded.push({ name, path });
  }
  return { exists: names !== undefined, segments, blank, stubs, beheaded, nextFile };
}

/** Undefined would be a file that went while the folder was read; it counts as empty. */
async function readSegment(disk: Disk, path: string): Promise<Buffer | 'unsafe'> {
  try {
    return (await disk.read(path, SEGMENT_BYTES_MAX)) ?? Buffer.alloc(0);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return 'unsafe';
    throw error;
  }
}

/** True when no frame begins behind the header: none was written yet, or the segment was freed. */
export function isFirstFrameWiped(segment: Buffer): boolean {
  return segment.subarray(BLOCK_BYTES, LEAD_BYTES).every((byte) => byte === 0);
}

export interface LiveSegmentOnDisk {
  readonly number: number;
  readonly path: string;
  readonly bytes: number;
  /** Bytes of its whole frames. */
  readonly used: number;
  /** Offset behind the last of them. */
  readonly end: number;
}

export interface JournalSurvey {
  readonly live: readonly LiveSegmentOnDisk[];
  /** Acknowledged frames that are damaged or missing, a sentence for each place; none when all is well. */
  readonly faults: readonly string[];
  /** True when what is missing may lie behind the last whole frame. */
  readonly endIsUnknown: boolean;
  /** Where the journal goes on. */
  readonly next: JournalStart;
}

/**
 * Walks the journal from `start`, hands on every whole frame, oldest first, and says what is wrong. A frame `afterHole` follows
 * on acknowledged ones that are not there.
 *
 * A frame that is not whole and that nothing follows was torn by a crash; it was never acknowledged and is no fault.
 */
export function surveyJournal(
  folder: JournalFolder,
  start: JournalStart,
  onFrame: (frame: Buffer, afterHole: boolean) => void,
): JournalSurvey {
  const faults = folder.beheaded.map(({ name }) => `the header of the segment file ${name} is damaged`);
  const live: LiveSegmentOnDisk[] = [];
  let before: SegmentEnd = start.before;
  let number = start.firstLive;
  let hole = false;
  const found = [...folder.segments.keys()].filter((one) => one >= start.firstLive).sort((a, b) => a - b);
  for (const present of found) {
    const { header, seal, bytes, path } = folder.segments.get(present) as SegmentOnDisk;
    const isNext = present === number;
    const follows = header.previousId.equals(before.id) && header.previousTag.equals(before.tag);
    if (!isNext) faults.push(`segment ${number} is missing, and segment ${present} is there`);
    else if (!follows) faults.push(`segment ${present} does not follow what is there of the one before it`);
    hole ||= !isNext || !follows;
    let used = 0;
    let end = BLOCK_BYTES;
    let lastTag = Buffer.alloc(before.tag.length);
    let expected = 1;
    for (const frame of scanSegment(seal, bytes)) {
      if (frame.number !== expected) {
        faults.push(`segment ${present}: frame ${expected} is damaged, and frame ${frame.number} follows it`);
        hole = true;
      }
      onFrame(frame.plaintext, hole);
      hole = false;
      expected = frame.number + 1;
      used += frameBytes(frame.plaintext.length);
      end = frame.end;
      lastTag = Buffer.from(frame.tag);
    }
    before = { id: header.id, tag: lastTag };
    number = present + 1;
    live.push({ number: present, path, bytes: bytes.length, used, end });
  }
  return {
    live,
    faults,
    endIsUnknown: hole || folder.beheaded.length > 0,
    next: { firstLive: number, before },
  };
}
