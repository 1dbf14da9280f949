import assert from 'node:assert/strict';
import { type KeyObject, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { TAG_BYTES } from '@bundoc/shared/aead';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { Disk, DiskFile } from './disk.ts';
import {
  BLOCK_BYTES,
  encodeFrame,
  encodeHeader,
  frameBytes,
  SEGMENT_ID_BYTES,
  type SegmentHeader,
  type SegmentSeal,
} from './frame.ts';
import {
  type JournalFolder,
  type LiveSegmentOnDisk,
  readJournalFolder,
  surveyJournal,
} from './journal-folder.ts';
import { JournalCorrupt } from './segment-reader.ts';

/** The end of a segment, as its successor and the snapshot name it. */
export interface SegmentEnd {
  readonly id: Buffer;
  readonly tag: Buffer;
}

export const NO_SEGMENT: SegmentEnd = { id: Buffer.alloc(SEGMENT_ID_BYTES), tag: Buffer.alloc(TAG_BYTES) };

/** From where the journal counts: the first live segment, and the end of the one before it. */
export interface JournalStart {
  readonly firstLive: number;
  readonly before: SegmentEnd;
}

/** The keys of the journal's frames: one for each use of a segment, derived from a version of the DEK. */
export interface JournalKeys {
  /** The version that new segments are sealed under. */
  readonly version: number;
  /** Undefined for a version that there is no key of. */
  frameKey(version: number, segmentId: Buffer): KeyObject | undefined;
}

export interface JournalOptions {
  readonly disk: Disk;
  /** The journal's folder; exists. */
  readonly directory: string;
  readonly keys: JournalKeys;
  /** Size of a new segment, bytes. */
  readonly segmentBytes: number;
}

interface Segment {
  readonly path: string;
  readonly bytes: number;
}

interface TakenSegment extends Segment {
  /** True when there was no other left. */
  readonly isReserve: boolean;
}

interface FreeSegment extends Segment {
  /** True when the block behind its header is zeros, durably. */
  readonly clean: boolean;
}

interface LiveSegment extends Segment {
  /** Bytes of its frames. */
  used: number;
}

interface ActiveSegment {
  readonly live: LiveSegment;
  readonly file: DiskFile;
  readonly seal: SegmentSeal;
  readonly id: Buffer;
  offset: number;
  frames: number;
  lastTag: Buffer;
  /** While true, only frames that make room go into it. */
  isReserve: boolean;
}

/**
 * The commit log of one project: preallocated segments that are used again, so that making a frame durable is one write and
 * one `fdatasync` without any change of the file system's own structures.
 *
 * Not concurrent: one append at a time, which is what makes a torn frame the last one.
 */
export class Journal {
  readonly #options: JournalOptions;
  readonly #free: FreeSegment[] = [];
  /** Paths of segments that hold commits a checkpoint has not covered, by number. */
  readonly #live = new Map<number, LiveSegment>();
  #liveBytes = 0;
  #active: ActiveSegment | undefined;
  #nextNumber: number;
  #end: SegmentEnd;
  #nextFile = 0;

  private constructor(options: JournalOptions, start: JournalStart) {
    this.#options = options;
    this.#nextNumber = start.firstLive;
    this.#end = start.before;
  }

  /**
   * Opens the journal and hands every frame from `start` on to `replay`, oldest first. Nothing is appended behind a
   * replayed tail: the next append begins a new segment.
   *
   * @throws JournalCorrupt when acknowledged frames are damaged or missing.
   */
  static async open(
    options: JournalOptions,
    start: JournalStart,
    replay: (frame: Buffer) => void,
  ): Promise<Journal> {
    const journal = new Journal(options, start);
    await journal.#replay(start, replay);
    return journal;
  }

  /** Bytes of frames that a checkpoint has not covered yet. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /**
   * Makes one frame durable. Once rejected, whether it is durable is unknown, unless the code is `disk_full`: then nothing
   * was written.
   *
   * @param mayUseReserve whether the last free segment may be taken on a full disk: for frames that make room.
   */
  async append(plaintext: readonly Buffer[], { mayUseReserve = false } = {}): Promise<void> {
    const need = frameBytes(plaintext.reduce((sum, part) => sum + part.length, 0));
    if (!mayUseReserve && this.#active?.isReserve === true) await this.#leaveReserve();
    if (this.#active === undefined || this.#active.offset + need > this.#active.live.bytes) {
      await this.rotate();
      this.#active = await this.#begin(need, mayUseReserve);
    }
    const active = this.#active;
    const frame = encodeFrame(active.seal, active.frames + 1, plaintext);
    await writeDurably(active.file, active.offset, frame);
    active.offset += frame.length;
    active.frames++;
    active.lastTag = Buffer.from(frame.subarray(8, 8 + TAG_BYTES));
    active.live.used += frame.length;
    this.#liveBytes += frame.length;
  }

  /** Once there is space for another segment, that one is the reserve. @throws AppError `disk_full` */
  async #leaveReserve(): Promise<void> {
    if (this.#active?.isReserve !== true) return;
    if (this.#free.length === 0) this.#free.push({ ...(await this.#makeSegment(0)), clean: true });
    this.#active.isReserve = false;
  }

  /** Ends the present segment. @returns where the journal goes on: what a snapshot taken from now on must name. */
  async rotate(): Promise<JournalStart> {
    const active = this.#active;
    if (active !== undefined) {
      this.#active = undefined;
      this.#end = { id: active.id, tag: active.lastTag };
      await active.file.close();
    }
    return { firstLive: this.#nextNumber, before: this.#end };
  }

  /** {@link rotate} for a checkpoint. That may fail for want of space, so it may not cost the reserve. @throws AppError `disk_full` */
  async beginCheckpoint(): Promise<JournalStart> {
    await this.#leaveReserve();
    return this.rotate();
  }

  /**
   * Frees the segments before `firstLive`, once a snapshot that names it is durable. `keep` of the free ones stay for later
   * use, the others are removed.
   */
  async recycle(firstLive: number, keep: number): Promise<void> {
    for (const [number, { path, bytes, used }] of [...this.#live]) {
      if (number >= firstLive) continue;
      this.#live.delete(number);
      this.#liveBytes -= used;
      this.#free.push({ path, bytes, clean: false });
    }
    for (const { path } of this.#free.splice(keep)) await this.#options.disk.remove(path);
    for (const [at, free] of this.#free.entries()) {
      if (!free.clean) this.#free[at] = await this.#cleaned(free);
    }
  }

  /** Ends the present segment, and keeps one free one at most, so that a closed project takes little room. */
  async close(): Promise<void> {
    await this.rotate();
    for (const { path } of this.#free.splice(1)) await this.#options.disk.remove(path);
  }

  /**
   * Takes a free segment, or makes one, and makes its header durable before any frame is written. So a header that is not
   * whole and has a frame behind it was damaged, and one that has none was being written at a crash.
   */
  async #begin(need: number, mayUseReserve: boolean): Promise<ActiveSegment> {
    const { disk, keys } = this.#options;
    const segment = await this.#takeSegment(BLOCK_BYTES + need, mayUseReserve);
    const header: SegmentHeader = {
      keyVersion: keys.version,
      id: randomBytes(SEGMENT_ID_BYTES),
      number: this.#nextNumber,
      previousId: this.#end.id,
      previousTag: this.#end.tag,
    };
    const key = keys.frameKey(header.keyVersion, header.id);
    assert(key !== undefined, 'the current version has a key');
    const headerBlock = encodeHeader(key, header);
    const file = await disk.openFile(segment.path);
    try {
      await writeDurably(file, 0, headerBlock);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
    const live: LiveSegment = { path: segment.path, bytes: segment.bytes, used: 0 };
    this.#nextNumber++;
    this.#live.set(header.number, live);
    return {
      live,
      file,
      seal: { key, headerBlock },
      id: header.id,
      offset: BLOCK_BYTES,
      frames: 0,
      lastTag: Buffer.alloc(TAG_BYTES),
      isReserve: segment.isReserve,
    };
  }

  /** A free segment, but not the last one: that is the reserve, so that there is a way on when the disk is full. */
  async #takeSegment(bytesMin: number, mayUseReserve: boolean): Promise<TakenSegment> {
    if (this.#free.length === 0) await this.#makeReserve();
    if (this.#free.length > 1) {
      const free = this.#takeFree(bytesMin);
      if (free !== undefined) return { ...(free.clean ? free : await this.#cleaned(free)), isReserve: false };
    }
    try {
      return { ...(await this.#makeSegment(bytesMin)), isReserve: false };
    } catch (error) {
      const reserve = mayUseReserve && hasCode(error, 'disk_full') ? this.#takeFree(bytesMin) : undefined;
      if (reserve === undefined) throw error;
      return { ...(reserve.clean ? reserve : await this.#cleaned(reserve)), isReserve: true };
    }
  }

  #takeFree(bytesMin: number): FreeSegment | undefined {
    const found = this.#free.findIndex(({ bytes }) => bytes >= bytesMin);
    return found === -1 ? undefined : this.#free.splice(found, 1)[0];
  }

  async #makeReserve(): Promise<void> {
    try {
      this.#free.push({ ...(await this.#makeSegment(0)), clean: true });
    } catch (error) {
      if (!hasCode(error, 'disk_full')) throw error;
    }
  }

  async #makeSegment(bytesMin: number): Promise<Segment> {
    const { disk, directory, segmentBytes } = this.#options;
    const bytes = Math.max(segmentBytes, bytesMin);
    const path = join(directory, String(this.#nextFile++).padStart(8, '0'));
    try {
      await disk.createFile(path, Buffer.alloc(bytes));
      await disk.syncDirectory(directory);
    } catch (error) {
      await disk.remove(path).catch(() => false);
      throw error;
    }
    return { path, bytes };
  }

  /**
   * Wipes the block in which the first frame begins. The old header stays: it is whole, and of a number that is no longer
   * live, until the next one is written over it.
   */
  async #cleaned({ path, bytes }: Segment): Promise<FreeSegment> {
    const file = await this.#options.disk.openFile(path);
    try {
      await writeDurably(file, BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES));
    } finally {
      await file.close();
    }
    return { path, bytes, clean: true };
  }

  async #replay(start: JournalStart, replay: (frame: Buffer) => void): Promise<void> {
    const { disk, directory, keys } = this.#options;
    const folder = await readJournalFolder(disk, directory, keys);
    const { live, faults, next } = surveyJournal(folder, start, (frame, afterHole) => {
      if (!afterHole) replay(frame);
    });
    if (faults[0] !== undefined) throw new JournalCorrupt(faults[0]);
    for (const path of folder.stubs) await disk.remove(path);
    for (const { number, path, bytes, used } of live) {
      this.#live.set(number, { path, bytes, used });
      this.#liveBytes += used;
    }
    for (const segment of folder.blank) this.#free.push({ ...segment, clean: true });
    for (const [number, { path, bytes }] of folder.segments) {
      if (number < start.firstLive) this.#free.push({ path, bytes: bytes.length, clean: false });
    }
    this.#nextFile = folder.nextFile;
    this.#nextNumber = next.firstLive;
    this.#end = next.before;
    await this.#makeDurable(tailOf(folder, live.at(-1)));
  }

  /**
   * What was replayed must be durable before anything builds on it: the next header names the last tag, and what it names must
   * not be missing after a power cut. The process before may have been killed between a write and its sync, or
   * the sync failed; then the kernel holds the pages for clean, and only writing them again gets them to the disk. Frames before the
   * last one, and segments before the last one, were synced before the next was written.
   */
  async #makeDurable(tail: { path: string; bytes: Buffer } | undefined): Promise<void> {
    const { disk, directory } = this.#options;
    // Also the names of free segments: what will be written into them must be found again.
    await disk.syncDirectory(directory);
    if (tail === undefined) return;
    const file = await disk.openFile(tail.path);
    try {
      await writeDurably(file, 0, tail.bytes);
    } finally {
      await file.close();
    }
  }
}

/** The last segment, up to behind its last whole frame. */
function tailOf(
  { segments }: JournalFolder,
  last: LiveSegmentOnDisk | undefined,
): { path: string; bytes: Buffer } | undefined {
  const segment = last === undefined ? undefined : segments.get(last.number);
  return segment === undefined
    ? undefined
    : { path: segment.path, bytes: segment.bytes.subarray(0, last?.end) };
}

/**
 * Overwrites a part of a segment. Its space was taken when it was made, so a disk that is full for it all the same is one
 * that failed: part of the bytes may be there, and what a caller tries again must not lie beside them.
 *
 * @throws AppError `storage_unavailable`, never `disk_full`.
 */
async function writeDurably(file: DiskFile, offset: number, bytes: Buffer): Promise<void> {
  try {
    await file.writeDurably(offset, bytes);
  } catch (error) {
    if (hasCode(error, 'disk_full')) throw new AppError('storage_unavailable', { cause: error });
    throw error;
  }
}
