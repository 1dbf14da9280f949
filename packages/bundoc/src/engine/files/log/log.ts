import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { Carrier } from './carrier.ts';
import { frameBytes } from './frame.ts';
import { BLOCK_BYTES, blocksOf, FRAME_PARTS_MAX, type FramePlace, type Place } from './layout.ts';
import type {
  AttachedHandle,
  CarryTarget,
  FailedHandles,
  LogEnd,
  LogMark,
  LogOptions,
  LogStats,
  PartSource,
  ReadableLog,
} from './log-api.ts';
import { LogContent } from './log-content.ts';
import { LogWriter } from './log-writer.ts';
import type { PartReader } from './parts.ts';
import { type LogScan, lostLog, scanLog } from './scan.ts';
import { isFull, Segments, SPARSE_SEGMENTS_MAX } from './segments.ts';
import { StuckParts } from './stuck-parts.ts';

/**
 * The log of a data folder. Concurrent commits of all projects share a frame, with one write and one sync.
 * docs/adr/0027-one-log.md gives the reasons; docs/formats/log.md has the bytes.
 */
export class Log implements ReadableLog, AsyncDisposable {
  readonly #options: LogOptions;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #writer: LogWriter;
  readonly #carrier: Carrier;
  readonly #stuck: StuckParts;
  #carrying: Promise<FailedHandles> | undefined;
  /** The number of segments freed by carrying since the newest one began. */
  #freed: { readonly behind: number | undefined; readonly count: number } = { behind: undefined, count: 0 };

  private constructor(options: LogOptions, buffer: Buffer, scan: LogScan, stuck: StuckParts) {
    this.#options = options;
    this.#segments = new Segments(options, scan, () => this.#writer.retryHeld());
    this.#content = new LogContent(scan);
    this.#writer = new LogWriter(options, buffer, scan, this.#segments, this.#content);
    this.#stuck = stuck;
    this.#carrier = new Carrier(options, this.#segments, this.#content, stuck);
  }

  /**
   * Scans the log, without any key, and makes its end durable. Nothing is appended to old segments: the next
   * part begins a new one.
   *
   * @throws LogDamaged when the log, or a live segment, is missing or belongs to another storage.
   */
  static async open(options: LogOptions): Promise<Log> {
    const { disk, directory, storageId, limits, mustExist } = options;
    const most = blocksOf(frameBytes(FRAME_PARTS_MAX, FRAME_PARTS_MAX, limits.frameBytes)) * BLOCK_BYTES;
    const buffer = disk.frameBuffer(Math.min(limits.segmentBytes, most));
    await disk.makeDirectory(directory);
    // Even for an existing folder, because a process may have died between creating and syncing it.
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
    // Also makes the names of segments durable: later writes to them must be found again.
    await disk.syncDirectory(directory);
    const log = new Log(options, buffer, scan, await StuckParts.open(disk, directory));
    try {
      await log.#segments.makeFirst();
    } catch (error) {
      if (!isFull(error) || log.#segments.free === 0) throw error;
    }
    if (scan.nextNumber === 1) await log.#beginFirst();
    log.#writer.segment.release();
    return log;
  }

  /** Begins the first segment. From then on, a missing log counts as lost. */
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
      holes: (this.#content.hole === undefined ? 0 : 1) + this.#content.lostLists.length,
      writesStopped: this.#writer.isStopped,
    };
  }

  get handles(): IterableIterator<string> {
    return this.#content.index.handlesFrom(this.firstLive);
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

  /**
   * Accepts the loss of the parts in a hole, for an administrator. The next segment begins at once and makes
   * this durable.
   */
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
   * Connects a project that writes.
   *
   * @param after its last part as its opening found it; the next part names it as the previous one.
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

  /** Records that the parts up to a mark are durable elsewhere. Frees segments that are no longer needed. */
  cover(handle: string, { place, bytes }: LogMark): void {
    this.#content.index.cover(handle, place, bytes);
    this.#writer.segment.release();
    const attached = this.#writer.turns.unhold(handle);
    if (attached !== undefined) this.#writer.ready(attached);
  }

  /** {@link cover} for a handle that is not attached: from a catalog, or because the part is empty. */
  coverTo(handle: string, place: FramePlace): void {
    this.#content.index.cover(handle, place, 0);
    this.#writer.segment.release();
  }

  /** {@link coverTo} for all parts of a handle, if none has content. */
  coverEmpty(handle: string): void {
    const newest = this.newest(handle);
    if (newest !== undefined && this.#content.index.uncoveredBytesOf(handle) === 0)
      this.coverTo(handle, newest);
  }

  /**
   * The segments from a number on whose syncs have succeeded, with their last frames, for the archive.
   *
   * @param from the first live one of the newest header when undefined. Then all from there on are kept.
   */
  shippable(from: number | undefined): LogEnd {
    const { durableFirstLive: firstLive, lastFrameOf } = this.#writer.segment;
    if (from === undefined) this.#segments.keepFrom(firstLive);
    const segments = this.#segments.from(from ?? firstLive);
    return { segments: segments.map((one) => ({ ...one, lastFrame: lastFrameOf(one) })), firstLive };
  }

  /** As {@link Segments.keepFrom}. */
  keepFrom(segment: number): void {
    this.#segments.keepFrom(segment);
  }

  /** The number of the oldest live segment. */
  get firstLive(): number {
    return this.#segments.firstLive;
  }

  /**
   * True while the oldest segment should be freed: a third of the log is used, or many segments have few live
   * parts. Freeing becomes durable with the next segment's header, so a start should free before it writes.
   */
  get shouldFree(): boolean {
    return this.#writer.segment.shouldFree;
  }

  /** Handles whose parts keep the oldest segment from being reused. */
  pinning(): string[] {
    const oldest = this.#segments.firstLive;
    return oldest === this.#writer.segment.active?.number ? [] : this.#content.index.pinning(oldest);
  }

  /**
   * Frees the oldest segment, without any key. It copies the sealed parts that pin it to the folders of their
   * projects, or to the log's own folder for projects whose folders fail. Cover everything possible by
   * snapshots first. Concurrent calls share one run.
   *
   * @returns handles whose folders failed. @throws when the log's own folder fails, too; then nothing is
   *   freed.
   */
  carryOldest(target: CarryTarget): Promise<FailedHandles> {
    this.#carrying ??= this.#carryOldest(target).finally(() => {
      this.#carrying = undefined;
    });
    return this.#carrying;
  }

  async #carryOldest(target: CarryTarget): Promise<FailedHandles> {
    this.#writer.requireOpen();
    const segment = this.#segments.at(this.#segments.firstLive);
    if (segment === undefined || segment.number === this.#writer.segment.active?.number) return new Map();
    const failed = await this.#carrier.carry(segment, target);
    this.#writer.segment.release();
    await this.#keepFreed();
    return failed;
  }

  /**
   * Freeing becomes durable with the next header. Processes that repeatedly end before it would carry the
   * same parts again and find more and more segments. So after some freed segments, a new one begins.
   */
  async #keepFreed(): Promise<void> {
    const { segment } = this.#writer;
    const { newest } = segment;
    const count = this.#freed.behind === newest ? this.#freed.count + 1 : 1;
    this.#freed = { behind: newest, count };
    if (count <= SPARSE_SEGMENTS_MAX || !this.#segments.hasUnreserved) return;
    const beginning = this.#writer.exclusively(async () => {
      await segment.close();
      await segment.beginSomewhere();
    });
    // The log closes or has stopped: the next header records it.
    await beginning.catch((error: unknown) => {
      if (!hasCode(error, 'storage_unavailable')) throw error;
    });
  }

  /**
   * Carries all uncovered parts, including those of the current segment. Afterwards nothing is uncovered,
   * every segment but the new one is free, and each project's folder is complete. Parts in the log's own
   * folder are moved back first. Writes wait for the end.
   *
   * @returns handles whose folders failed: their parts are in the log's own folder.
   * @throws when that folder fails, too, or no segment can begin.
   */
  async carryAll(target: CarryTarget): Promise<FailedHandles> {
    while (this.#carrying !== undefined) await this.#carrying.catch(() => undefined);
    const carrying = this.#writer.exclusively(() => this.#carryAll(target));
    const done = () => {
      this.#carrying = undefined;
    };
    this.#carrying = carrying;
    carrying.then(done, done);
    return carrying;
  }

  async #carryAll(target: CarryTarget): Promise<FailedHandles> {
    const { segment } = this.#writer;
    const failed = new Map(await this.#carrier.putBack(target));
    await segment.end();
    for (const live of this.#segments.all())
      for (const [handle, cause] of await this.#carrier.carry(live, target)) failed.set(handle, cause);
    segment.release();
    // Its header durably records that the segments are free.
    if (await segment.beginSomewhere()) return failed;
    throw new AppError('storage_unavailable');
  }

  /** Refuses sources that wait for a segment, because none can be freed. */
  refuseHeld(error: AppError): void {
    this.#writer.refuseHeld(error);
  }

  /**
   * Ends writing. Waiting commits are refused. An empty frame follows the last one, so that damage to the
   * last one can be detected.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#carrying?.catch(() => undefined);
    await this.#segments.settled();
  }
}
