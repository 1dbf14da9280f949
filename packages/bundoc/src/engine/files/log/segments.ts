import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { codeOf } from '@bundoc/shared/files/data-folder';
import { PartReader } from './parts.ts';
import type { LogDisk } from './ports.ts';
import type { LiveSegment, LogScan } from './scan.ts';
import type { Cut } from './segment-header.ts';
import { SharedFiles } from './shared-files.ts';

export interface SegmentLimits {
  /** Length of a segment's file. */
  readonly segmentBytes: number;
  /** Number of segments created with the log, at least four. */
  readonly segmentsMin: number;
  /** Maximum number of segments. */
  readonly segmentsMax: number;
}

export interface SegmentsOptions {
  readonly disk: LogDisk;
  readonly directory: string;
  readonly limits: SegmentLimits;
  /** The first segment that the archive may lack; undefined without an archive. */
  readonly keepFrom?: number | undefined;
}

/** Freeing begins at this fill of the log. */
const FREE_FROM = 0.35;
/** Number of closed segments that may be sparse; with more of them, the oldest is freed. */
export const SPARSE_SEGMENTS_MAX = 3;
/** Closed segments are sparse when less than this fraction of them is uncovered. */
const SPARSE_BELOW = 0.25;
/** The last free segments, reserved for commits that free space. */
const RESERVE_SEGMENTS = 2;

const ZEROS_BYTES = 1_048_576;

async function* zeros(bytes: number): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(Math.min(bytes, ZEROS_BYTES));
  for (let left = bytes; left > 0; left -= piece.length)
    yield piece.subarray(0, Math.min(left, piece.length));
}

/** A reader with the segments that were live when it started. */
interface Reading {
  readonly segments: ReadonlyMap<number, LiveSegment>;
}

interface FreedSegment {
  readonly path: string;
  /** Readers that may still read it. */
  readonly readers: readonly Reading[];
  /** What its file still has; undefined for a file that has nothing. */
  readonly content: LiveSegment | undefined;
}

/** The files of the log: the live ones, the free ones, and how many more may be created. */
export class Segments {
  readonly #disk: LogDisk;
  readonly #directory: string;
  readonly #limits: SegmentLimits;
  readonly #live: Map<number, LiveSegment>;
  #free: FreedSegment[];
  readonly #readers = new Set<Reading>();
  readonly #onUsable: () => void;
  readonly #reads: SharedFiles;
  /** Freed segments from this one on are kept until the archive has them. */
  #keptFrom: number;
  #nextFile: number;
  #nextNumber: number;
  #growing: Promise<void> | undefined;

  /** @param onUsable called when free segments may be reused that a reader or the archive has kept. */
  constructor({ disk, directory, limits, keepFrom }: SegmentsOptions, scan: LogScan, onUsable: () => void) {
    this.#disk = disk;
    this.#reads = new SharedFiles(disk);
    this.#onUsable = onUsable;
    this.#directory = directory;
    this.#limits = limits;
    this.#live = new Map(scan.live.map((segment) => [segment.number, segment]));
    const contents = new Map(scan.freed.map((segment) => [segment.path, segment]));
    this.#free = scan.free.map((path) => ({ path, readers: [], content: contents.get(path) }));
    this.#keptFrom = keepFrom ?? Number.POSITIVE_INFINITY;
    this.#nextFile = scan.nextFile;
    this.#nextNumber = scan.nextNumber;
  }

  get live(): number {
    return this.#live.size;
  }

  /** Number of segments that are ready for use. */
  get free(): number {
    return this.#free.reduce((count, freed) => (this.#isUsable(freed) ? count + 1 : count), 0);
  }

  /** Whether there is a free segment besides the reserve. */
  get hasUnreserved(): boolean {
    return this.free > RESERVE_SEGMENTS;
  }

  get isReserveWhole(): boolean {
    return this.free >= RESERVE_SEGMENTS;
  }

  /** The live fraction of the segments outside the reserve. */
  get fill(): number {
    return this.#live.size / Math.max(1, this.#limits.segmentsMax - RESERVE_SEGMENTS);
  }

  /**
   * Whether the oldest segment should be freed: a third of the log is used, or restarts have left several
   * sparse segments.
   *
   * @param active the number of the current segment.
   */
  shouldFree(uncoveredBytes: number, active: number | undefined): boolean {
    if (this.fill >= FREE_FROM) return true;
    const closed = this.#live.size - (active === undefined ? 0 : 1);
    const isSparse = uncoveredBytes < closed * this.#limits.segmentBytes * SPARSE_BELOW;
    return closed > SPARSE_SEGMENTS_MAX && isSparse;
  }

  get mayGrow(): boolean {
    return this.#live.size + this.#free.length - this.kept < this.#limits.segmentsMax;
  }

  /** Number of freed segments that are kept for the archive. */
  get kept(): number {
    return this.#free.reduce((count, freed) => (this.#isKept(freed) ? count + 1 : count), 0);
  }

  /**
   * Keeps freed segments from this one on from being reused, and no earlier ones. They come on top of the
   * log's own size, up to half of it. Beyond that, all of them may be reused.
   */
  keepFrom(number: number): void {
    this.#keptFrom = number;
    this.#limitKept();
    this.#onUsable();
  }

  /** The live segments and the kept ones from a number on, oldest first. */
  from(number: number): LiveSegment[] {
    const kept = this.#free.flatMap((freed) => (this.#isKept(freed) ? (freed.content ?? []) : []));
    return [...kept, ...this.#live.values()]
      .filter((segment) => segment.number >= number)
      .sort((a, b) => a.number - b.number);
  }

  /** The oldest live segment; the next number when there is none. */
  get firstLive(): number {
    return this.#live.keys().next().value ?? this.#nextNumber;
  }

  /** A number that no header has had, including failed ones. */
  takeNumber(): number {
    return this.#nextNumber++;
  }

  at(number: number): LiveSegment | undefined {
    return this.#live.get(number);
  }

  /** The first live segment after a number. */
  after(number: number): number {
    for (const live of this.#live.keys()) if (live > number) return live;
    return this.#nextNumber;
  }

  /** Live segments, oldest first. */
  all(): LiveSegment[] {
    return [...this.#live.values()];
  }

  /**
   * Adds a new segment. The one that `cut` names ends there; later ones have no valid frame and are released.
   */
  add(segment: LiveSegment, cut: Cut | undefined): void {
    const before = cut && this.#live.get(cut.segment);
    if (before !== undefined) this.#live.set(before.number, { ...before, end: cut });
    // It may have been freed before it ended.
    if (cut !== undefined) this.#free = this.#free.map((freed) => withEnd(freed, cut));
    for (const number of [...this.#live.keys()]) if (number > (cut?.segment ?? 0)) this.release(number);
    this.#live.set(segment.number, segment);
  }

  /** A free segment; undefined when only the reserve is left. */
  take(mayUseReserve: boolean): string | undefined {
    if (this.free <= (mayUseReserve ? 0 : RESERVE_SEGMENTS)) return undefined;
    const at = this.#free.findIndex((freed) => this.#isUsable(freed));
    return at === -1 ? undefined : this.#free.splice(at, 1)[0]?.path;
  }

  /** Returns a file whose header could not be written, to the end of the free ones. */
  giveBack(path: string): void {
    this.#free.push({ path, readers: [], content: undefined });
  }

  /** Ends the life of a segment. Its file may be reused once another header records that. */
  release(number: number): void {
    const segment = this.#live.get(number);
    if (segment === undefined) return;
    this.#live.delete(number);
    const readers = [...this.#readers].filter(({ segments }) => segments.has(number));
    this.#free.push({ path: segment.path, readers, content: segment });
    this.#limitKept();
  }

  /** Creates the first segments. @throws AppError `disk_full` */
  async makeFirst(): Promise<void> {
    while (this.#live.size + this.#free.length < this.#limits.segmentsMin) await this.grow();
  }

  /** Creates another segment, or joins a running creation. @throws AppError `disk_full` */
  grow(): Promise<void> {
    this.#growing ??= this.#make().finally(() => {
      this.#growing = undefined;
    });
    return this.#growing;
  }

  /** Resolves once no segment is being created or open for reading. */
  async settled(): Promise<void> {
    await this.#growing?.catch(() => undefined);
    await this.#reads[Symbol.asyncDispose]();
  }

  /** Reads parts. Segments freed in the meantime are not overwritten before the reader is disposed of. */
  reader(): PartReader {
    const reading: Reading = { segments: new Map(this.#live) };
    this.#readers.add(reading);
    return new PartReader(this.#reads, reading.segments, () => {
      this.#readers.delete(reading);
      if (this.#free.some(({ readers }) => readers.includes(reading))) this.#onUsable();
    });
  }

  #isUsable(freed: FreedSegment): boolean {
    return !this.#isKept(freed) && !freed.readers.some((reading) => this.#readers.has(reading));
  }

  #isKept({ content }: FreedSegment): boolean {
    return content !== undefined && content.number >= this.#keptFrom;
  }

  #limitKept(): void {
    const keepsAny = this.#keptFrom !== Number.POSITIVE_INFINITY;
    if (keepsAny && this.kept > this.#limits.segmentsMax / 2) this.#keptFrom = Number.POSITIVE_INFINITY;
  }

  async #make(): Promise<void> {
    const { segmentBytes } = this.#limits;
    const path = join(this.#directory, String(this.#nextFile++).padStart(8, '0'));
    try {
      await this.#disk.createFile(path, zeros(segmentBytes));
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      // An existing file is not from this process: another one may hold the data folder by now.
      if (!isTaken(error)) await this.#disk.remove(path).catch(() => false);
      throw error;
    }
    this.giveBack(path);
  }
}

function withEnd(freed: FreedSegment, end: Cut): FreedSegment {
  const { content } = freed;
  return content?.number === end.segment ? { ...freed, content: { ...content, end } } : freed;
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && error.cause !== undefined && codeOf(error.cause) === 'EEXIST';
}

/** True for a full disk or an exceeded disk quota. */
export function isFull(error: unknown): boolean {
  return hasCode(error, 'disk_full');
}
