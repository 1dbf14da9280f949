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
  /** Segments that are made when the log is, at least four. */
  readonly segmentsMin: number;
  /** Segments that the log may grow to. */
  readonly segmentsMax: number;
}

/** From this part of the log on, freeing begins. */
const FREE_FROM = 0.35;
/** So many closed segments may hold little; with more of them, the oldest is freed. */
export const SPARSE_SEGMENTS_MAX = 3;
/** Closed segments hold little when less than this part of them is uncovered. */
const SPARSE_BELOW = 0.25;
/** The last so many free segments are for what makes room. */
const RESERVE_SEGMENTS = 2;

const ZEROS_BYTES = 1_048_576;

async function* zeros(bytes: number): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(Math.min(bytes, ZEROS_BYTES));
  for (let left = bytes; left > 0; left -= piece.length)
    yield piece.subarray(0, Math.min(left, piece.length));
}

/** A reader, which knows the segments that were live when it began. */
interface Reading {
  readonly segments: ReadonlyMap<number, LiveSegment>;
}

interface FreedSegment {
  readonly path: string;
  /** Readers that may still read it. */
  readonly readers: readonly Reading[];
}

/**
 * The files of the log: which count, which are free, and how many more may be made.
 *
 * One class, because live, free and new files share one limit.
 */
export class Segments {
  readonly #disk: LogDisk;
  readonly #directory: string;
  readonly #limits: SegmentLimits;
  readonly #live: Map<number, LiveSegment>;
  #free: FreedSegment[];
  readonly #readers = new Set<Reading>();
  readonly #onUsable: () => void;
  readonly #reads: SharedFiles;
  #nextFile: number;
  #nextNumber: number;
  #growing: Promise<void> | undefined;

  /** @param onUsable called when a reader has ended that kept segments from being used. */
  constructor(disk: LogDisk, directory: string, limits: SegmentLimits, scan: LogScan, onUsable: () => void) {
    this.#disk = disk;
    this.#reads = new SharedFiles(disk);
    this.#onUsable = onUsable;
    this.#directory = directory;
    this.#limits = limits;
    this.#live = new Map(scan.live.map((segment) => [segment.number, segment]));
    this.#free = scan.free.map((path) => ({ path, readers: [] }));
    this.#nextFile = scan.nextFile;
    this.#nextNumber = scan.nextNumber;
  }

  get live(): number {
    return this.#live.size;
  }

  /** Segments that may be used at once. */
  get free(): number {
    return this.#free.reduce((count, freed) => (this.#isUsable(freed) ? count + 1 : count), 0);
  }

  /** True while there is a free segment beside the reserve. */
  get hasUnreserved(): boolean {
    return this.free > RESERVE_SEGMENTS;
  }

  get isReserveWhole(): boolean {
    return this.free >= RESERVE_SEGMENTS;
  }

  /** Of the segments that are not reserved, the part that counts. */
  get fill(): number {
    return this.#live.size / Math.max(1, this.#limits.segmentsMax - RESERVE_SEGMENTS);
  }

  /**
   * Whether the oldest segment should be freed: a third of the log is used, or restarts have used segments up
   * that hold little.
   *
   * @param active the segment that is written.
   */
  shouldFree(uncoveredBytes: number, active: number | undefined): boolean {
    if (this.fill >= FREE_FROM) return true;
    const closed = this.#live.size - (active === undefined ? 0 : 1);
    const isSparse = uncoveredBytes < closed * this.#limits.segmentBytes * SPARSE_BELOW;
    return closed > SPARSE_SEGMENTS_MAX && isSparse;
  }

  get mayGrow(): boolean {
    return this.#live.size + this.#free.length < this.#limits.segmentsMax;
  }

  /** The oldest segment that counts; the next one when none does. */
  get firstLive(): number {
    return this.#live.keys().next().value ?? this.#nextNumber;
  }

  /** A number that no header has had, not even one that failed. */
  takeNumber(): number {
    return this.#nextNumber++;
  }

  at(number: number): LiveSegment | undefined {
    return this.#live.get(number);
  }

  /** The first that counts behind a segment. */
  after(number: number): number {
    for (const live of this.#live.keys()) if (live > number) return live;
    return this.#nextNumber;
  }

  /** Those that count, the oldest first. */
  all(): LiveSegment[] {
    return [...this.#live.values()];
  }

  /**
   * A segment was begun. The one that `cut` names has ended there; those behind that have no frame that
   * counts.
   */
  add(segment: LiveSegment, cut: Cut | undefined): void {
    const before = cut && this.#live.get(cut.segment);
    if (before !== undefined) this.#live.set(before.number, { ...before, end: cut });
    for (const number of [...this.#live.keys()]) if (number > (cut?.segment ?? 0)) this.release(number);
    this.#live.set(segment.number, segment);
  }

  /** A free segment; undefined when there is none but the reserve. */
  take(mayUseReserve: boolean): string | undefined {
    if (this.free <= (mayUseReserve ? 0 : RESERVE_SEGMENTS)) return undefined;
    const at = this.#free.findIndex((freed) => this.#isUsable(freed));
    return at === -1 ? undefined : this.#free.splice(at, 1)[0]?.path;
  }

  /** Gives back a file whose header could not be written. It goes behind the others. */
  giveBack(path: string): void {
    this.#free.push({ path, readers: [] });
  }

  /** A segment does not count any more. Its file may be used again, once the header of another says so. */
  release(number: number): void {
    const segment = this.#live.get(number);
    if (segment === undefined) return;
    this.#live.delete(number);
    const readers = [...this.#readers].filter(({ segments }) => segments.has(number));
    this.#free.push({ path: segment.path, readers });
  }

  /** Makes the first segments. @throws AppError `disk_full` */
  async makeFirst(): Promise<void> {
    while (this.#live.size + this.#free.length < this.#limits.segmentsMin) await this.grow();
  }

  /** Makes another segment, or waits for the one that is being made. @throws AppError `disk_full` */
  grow(): Promise<void> {
    this.#growing ??= this.#make().finally(() => {
      this.#growing = undefined;
    });
    return this.#growing;
  }

  /** Resolves once no segment is being made, and none is open for reading. */
  async settled(): Promise<void> {
    await this.#growing?.catch(() => undefined);
    await this.#reads[Symbol.asyncDispose]();
  }

  /** Reads parts. Segments that are freed meanwhile are not written over before the reader is disposed of. */
  reader(): PartReader {
    const reading: Reading = { segments: new Map(this.#live) };
    this.#readers.add(reading);
    return new PartReader(this.#reads, reading.segments, this.firstLive, () => {
      this.#readers.delete(reading);
      if (this.#free.some(({ readers }) => readers.includes(reading))) this.#onUsable();
    });
  }

  #isUsable({ readers }: FreedSegment): boolean {
    return !readers.some((reading) => this.#readers.has(reading));
  }

  async #make(): Promise<void> {
    const { segmentBytes } = this.#limits;
    const path = join(this.#directory, String(this.#nextFile++).padStart(8, '0'));
    try {
      await this.#disk.createFile(path, zeros(segmentBytes));
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      // A file that is there was not made here: another process may have the data folder by now.
      if (!isTaken(error)) await this.#disk.remove(path).catch(() => false);
      throw error;
    }
    this.giveBack(path);
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && error.cause !== undefined && codeOf(error.cause) === 'EEXIST';
}

/** True for a disk, or a quota, that has no room. */
export function isFull(error: unknown): boolean {
  return hasCode(error, 'disk_full');
}
