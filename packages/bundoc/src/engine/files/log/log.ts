import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { Carrier } from './carrier.ts';
import { frameBytes } from './frame.ts';
import { BLOCK_BYTES, blocksOf, FRAME_PARTS_MAX, type FramePlace, type Place } from './layout.ts';
import type {
  AttachedHandle,
  CarryTarget,
  LogMark,
  LogOptions,
  LogStats,
  PartSource,
  ReadableLog,
} from './log-api.ts';
import { type FoundBirth, LogContent } from './log-content.ts';
import { LogWriter } from './log-writer.ts';
import type { PartReader } from './parts.ts';
import { type LogScan, lostLog, scanLog } from './scan.ts';
import { isFull, Segments, SPARSE_SEGMENTS_MAX } from './segments.ts';
import { readSettled, writeSettled } from './settled-mark.ts';
import { birthsIn, StuckParts } from './stuck-parts.ts';

/**
 * The log of a data folder: what is committed in any project goes into one frame with what others commit at
 * the same time, by one write and one sync. docs/adr/0027-one-log.md says why; docs/formats/log.md has the
 * bytes.
 *
 * One class, because it is the whole interface of the log; its parts do the work.
 */
export class Log implements ReadableLog, AsyncDisposable {
  readonly #options: LogOptions;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #writer: LogWriter;
  readonly #carrier: Carrier;
  readonly #stuck: StuckParts;
  /** Births up to this segment had durable folders when the log was opened. */
  #settled = 0;
  #carrying: Promise<readonly string[]> | undefined;
  /** Segments that were freed by carrying since the newest one began. */
  #freed: { readonly behind: number | undefined; readonly count: number } = { behind: undefined, count: 0 };

  private constructor(options: LogOptions, buffer: Buffer, scan: LogScan, stuck: StuckParts) {
    const { disk, directory, limits } = options;
    this.#options = options;
    this.#segments = new Segments(disk, directory, limits, scan, () => this.#writer.retryHeld());
    this.#content = new LogContent(scan, this.#segments);
    this.#writer = new LogWriter(options, buffer, scan, this.#segments, this.#content);
    this.#stuck = stuck;
    this.#carrier = new Carrier(options, this.#segments, this.#content, stuck);
  }

  /**
   * Finds out what the log holds, without any key, and makes it durable. Nothing is appended behind what was
   * found: the next part begins a new segment.
   *
   * @throws LogDamaged when the log, or a segment that counts, is missing or of another storage.
   */
  static async open(options: LogOptions): Promise<Log> {
    const { disk, directory, storageId, limits, mustExist } = options;
    const most = blocksOf(frameBytes(FRAME_PARTS_MAX, FRAME_PARTS_MAX, limits.frameBytes)) * BLOCK_BYTES;
    const buffer = disk.frameBuffer(Math.min(limits.segmentBytes, most));
    await disk.makeDirectory(directory);
    // Also when it is there: a process may have died between making it and its sync.
    await disk.syncDirectory(dirname(directory));
    const scan = await scanLog(disk, directory, storageId, limits.segmentBytes);
    if (mustExist && scan.nextNumber === 1) throw lostLog(directory);
    for (const path of scan.truncated) await disk.remove(path);
    if (scan.unsure !== undefined) {
      const { path, offset, bytes } = scan.unsure;
      const file = await disk.openLogFile(path);
      try {
        await file.writeDurably(offset, bytes);
      } finally {
        await file.close();
      }
    }
    // Also the names of segments: what is written into them must be found again.
    await disk.syncDirectory(directory);
    const log = new Log(options, buffer, scan, await StuckParts.open(disk, directory));
    const settled = await readSettled(disk, directory);
    if (settled < scan.nextNumber) log.#settled = settled;
    try {
      await log.#segments.makeFirst();
    } catch (error) {
      if (!isFull(error) || log.#segments.free === 0) throw error;
    }
    if (scan.nextNumber === 1) await log.#beginFirst();
    log.#writer.segment.release();
    return log;
  }

  /** From here on, a log that is missing was lost. */
  async #beginFirst(): Promise<void> {
    const path = this.#segments.take(true);
    assert(path !== undefined, 'a new log has segments');
    await this.#writer.segment.begin(path, false);
  }

  get stats(): LogStats {
    return {
      ...this.#writer.counts,
      carries: this.#carrier.carried,
      segmentsLive: this.#segments.live,
      segmentsFree: this.#segments.free,
      uncoveredBytes: this.#content.index.uncoveredBytes,
      handles: this.#content.index.size,
      stuckHandles: this.#stuck.handles.size,
      suspectFrames: this.#content.suspects.length,
      holes: this.#content.hole === undefined ? 0 : 1,
      writesStopped: this.#writer.isStopped,
    };
  }

  get handles(): IterableIterator<string> {
    return this.#content.index.handles();
  }

  get stuck(): StuckParts {
    return this.#stuck;
  }

  newest(handle: string): Place | undefined {
    return this.#writer.turns.newestOf(handle) ?? this.#content.index.newest(handle);
  }

  isUncovered(handle: string): boolean {
    return this.#content.isUncovered(handle);
  }

  isDoubtful(handle: string, covered: FramePlace | undefined): boolean {
    return this.#content.isDoubtful(this.newest(handle), covered);
  }

  reader(): PartReader {
    return this.#segments.reader();
  }

  /** Whether the project of a birth has had a durable folder: one that is missing was taken away. */
  hadFolder(handle: string): boolean {
    const birth = this.#content.births.get(handle);
    return birth !== undefined && birth.segment <= this.#settled;
  }

  async *births(): AsyncGenerator<FoundBirth> {
    yield* this.#content.readBirths();
    yield* birthsIn(this.stuck);
  }

  /** An administrator accepts what a hole has cost. Durable with the next segment, which begins at once. */
  async acceptLoss(): Promise<void> {
    const { segment } = this.#writer;
    await this.#writer.exclusively(async () => {
      const { hole } = this.#content;
      this.#content.hole = undefined;
      await segment.close();
      if (await segment.beginSomewhere()) return;
      this.#content.hole = hole;
      throw new AppError('storage_unavailable');
    });
  }

  /**
   * Lets a project write.
   *
   * @param after its last part, as its opening found it: what its next part names as the one before.
   */
  attach(source: PartSource, after: Place | undefined): AttachedHandle {
    const { turns } = this.#writer;
    const attached = turns.attach(source, after);
    return {
      ready: () => {
        attached.subject = this.#options.writer?.() ?? '';
        this.#writer.ready(attached);
      },
      again: () => this.#writer.ready(attached),
      mark: () => turns.mark(attached),
      detach: () => turns.detach(attached),
    };
  }

  /** What the mark covers is durable elsewhere. Frees segments that nobody needs any more. */
  cover(handle: string, { place, bytes }: LogMark): void {
    this.#content.index.cover(handle, place, bytes);
    this.#writer.segment.release();
    const attached = this.#writer.turns.unhold(handle);
    if (attached !== undefined) this.#writer.ready(attached);
  }

  /** {@link cover} by what a catalog says, when the log has just been opened. */
  coverTo(handle: string, place: FramePlace): void {
    this.#content.index.cover(handle, place, 0);
    this.#writer.segment.release();
  }

  /** The oldest segment that counts. */
  get firstLive(): number {
    return this.#segments.firstLive;
  }

  /**
   * True while the oldest segment should be freed: a third of the log is used, or many segments hold little.
   * What is freed becomes durable with the next segment's header, so a start that can frees before it writes.
   */
  get shouldFree(): boolean {
    return this.#writer.segment.shouldFree;
  }

  /** Handles whose parts keep the oldest segment from being used again. */
  pinning(): string[] {
    const oldest = this.#segments.firstLive;
    return oldest === this.#writer.segment.active?.number ? [] : this.#content.index.pinning(oldest);
  }

  /**
   * Frees the oldest segment, without any key: copies the sealed parts that pin it to the folders of their
   * projects, and to the log's own folder for projects whose folders fail. Cover by a snapshot before
   * whatever can be. One is freed at a time: another call waits for the one that is under way.
   *
   * @returns handles whose folders failed. @throws when their parts can be put nowhere; then nothing is
   * freed.
   */
  carryOldest(target: CarryTarget): Promise<readonly string[]> {
    this.#carrying ??= this.#carryOldest(target).finally(() => {
      this.#carrying = undefined;
    });
    return this.#carrying;
  }

  async #carryOldest(target: CarryTarget): Promise<readonly string[]> {
    this.#writer.requireOpen();
    const segment = this.#segments.at(this.#segments.firstLive);
    if (segment === undefined || segment.number === this.#writer.segment.active?.number) return [];
    const failed = await this.#carrier.carry(segment, target);
    this.#writer.segment.release();
    await this.#keepFreed();
    return failed;
  }

  /**
   * What was freed is durable with the next header. Processes that end before they begin another segment
   * would carry the same parts again and again, and find ever more segments: so one is begun once that is
   * much.
   */
  async #keepFreed(): Promise<void> {
    const { segment } = this.#writer;
    const newest = segment.newest?.number;
    const count = this.#freed.behind === newest ? this.#freed.count + 1 : 1;
    this.#freed = { behind: newest, count };
    if (count <= SPARSE_SEGMENTS_MAX || !this.#segments.hasUnreserved) return;
    const beginning = this.#writer.exclusively(async () => {
      await segment.close();
      await segment.beginSomewhere();
    });
    // The log closes or has stopped: the next header says it.
    await beginning.catch((error: unknown) => {
      if (!hasCode(error, 'storage_unavailable')) throw error;
    });
  }

  /**
   * Carries all parts that nothing else has, of the segment that is written as well: afterwards nothing is
   * uncovered, every segment but the new one is free, and each project's folder holds all of its project.
   * Parts in the log's own folder are put back first. Writing waits meanwhile. The folders of all births must
   * be durable before.
   *
   * @returns handles whose folders failed: their parts are in the log's own folder.
   * @throws when parts can be put nowhere, or no segment can be begun.
   */
  async carryAll(target: CarryTarget): Promise<readonly string[]> {
    while (this.#carrying !== undefined) await this.#carrying.catch(() => undefined);
    const carrying = this.#writer.exclusively(() => this.#carryAll(target));
    const done = () => {
      this.#carrying = undefined;
    };
    this.#carrying = carrying;
    carrying.then(done, done);
    return carrying;
  }

  async #carryAll(target: CarryTarget): Promise<readonly string[]> {
    const { segment } = this.#writer;
    const failed = new Set(await this.#carrier.putBack(target));
    await segment.end();
    for (const live of this.#segments.all())
      for (const handle of await this.#carrier.carry(live, target)) failed.add(handle);
    segment.release();
    // Its header makes it durable that the segments are free.
    if (await segment.beginSomewhere()) return [...failed];
    throw new AppError('storage_unavailable');
  }

  /**
   * Says durably that the folders of all births are durable. The caller has synced them, and no birth is on
   * its way: at a start, at an orderly end, or while nobody writes. The next part begins a new segment, and
   * so takes the mark back.
   *
   * @throws AppError `storage_unavailable`, `disk_full`
   */
  async markSettled(): Promise<void> {
    const { disk, directory } = this.#options;
    const { segment } = this.#writer;
    await this.#writer.exclusively(async () => {
      await segment.end();
      assert(segment.newest !== undefined, 'an open log has a segment');
      await writeSettled(disk, directory, segment.newest);
    });
  }

  /** Refuses what waits for a segment: none can be freed. */
  refuseHeld(error: AppError): void {
    this.#writer.refuseHeld(error);
  }

  /**
   * Ends writing. What waits is refused. The last frame is followed by an empty one, so that damage to it is
   * noticed.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#carrying?.catch(() => undefined);
    await this.#segments.settled();
  }
}
