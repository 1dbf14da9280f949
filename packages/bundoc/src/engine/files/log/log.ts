import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { type Clock, systemClock } from '@bundoc/shared/clock';
import { AppError } from '@bundoc/shared/errors';
import { type Carried, encodeCarried } from './carried-file.ts';
import { FairQueue } from './fair-queue.ts';
import { ENTRY_BYTES, type Entry, FrameWriter, frameBytes, REPEAT_BYTES, type Repeat } from './frame.ts';
import {
  BLOCK_BYTES,
  blocksOf,
  comparePlaces,
  FRAME_PARTS_MAX,
  type FramePlace,
  HASH_BYTES,
  ID_BYTES,
  type Place,
  TAG_BYTES,
} from './layout.ts';
import type {
  AttachedHandle,
  CarryTarget,
  LogMark,
  LogOptions,
  LogStats,
  PartSource,
  ReadableLog,
  TakenPart,
} from './log-api.ts';
import { type FoundBirth, LogContent } from './log-content.ts';
import { aadStart, encodeBirth, type PartSeal, partKey, sealPart } from './part-seal.ts';
import type { PartReader } from './parts.ts';
import type { LogFile } from './ports.ts';
import {
  type LiveSegment,
  type LogScan,
  lostLog,
  type SegmentIndex,
  scanFrames,
  scanLog,
  withPart,
} from './scan.ts';
import type { SealedPart } from './sealed-part.ts';
import { type Cut, encodeHeader } from './segment-header.ts';
import { isFull, Segments } from './segments.ts';
import { StuckParts } from './stuck-parts.ts';

/** From this part of the log on, freeing begins. */
const FREE_FROM = 0.5;
/** From this part of the log on, who has most uncovered bytes waits first. */
const WAIT_FROM = 0.75;
const SHARES = 8;
const RETRY_MS = 1_000;
const CARRY_BATCH = 512;
const SHARE_BYTES_MIN = 16_384;
const NO_HASH = Buffer.alloc(HASH_BYTES);
const NO_TAG = Buffer.alloc(TAG_BYTES);

interface Active {
  readonly number: number;
  readonly id: Buffer;
  readonly file: LogFile;
  readonly index: SegmentIndex;
  /** Where the next frame begins. */
  block: number;
  lastFrame: number;
  lastHash: Buffer;
  lastParts: readonly Repeat[];
  /** While true, only what makes room goes into it. */
  isReserve: boolean;
}

/** A commit that goes into the log chunk by chunk. */
interface Large {
  readonly part: TakenPart;
  readonly plaintext: Buffer;
  readonly before: LogMark | undefined;
  sent: number;
  chunks: number;
}

interface Attached {
  readonly source: PartSource;
  newest: Place | undefined;
  seal: { readonly segmentId: Buffer; readonly version: number; readonly seal: PartSeal } | undefined;
  large: Large | undefined;
  /** In the segments of the reserve. */
  reserveBytes: number;
}

/** One part of the frame that is being made. */
interface Sending {
  readonly attached: Attached;
  readonly part: TakenPart;
  readonly kind: Entry['kind'];
  readonly chunks: number;
  readonly clear: Buffer | undefined;
  readonly plaintext: readonly Buffer[];
  readonly bytes: number;
  /** Made durable by this frame, and not by a later chunk. */
  readonly isLast: boolean;
}

/**
 * The log of a data folder: what is committed in any project goes into one frame with what others commit at
 * the same time, by one write and one sync. docs/adr/0027-one-log.md says why; docs/formats/log.md has the
 * bytes.
 *
 * One frame is in flight at a time, so a torn frame is the last one. A write that fails cuts the log: a new
 * segment says that the failed frame never happened.
 */
export class Log implements ReadableLog, AsyncDisposable {
  readonly #options: LogOptions;
  readonly #clock: Clock;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #queue = new FairQueue<Attached>(SHARE_BYTES_MIN);
  /** Who has something, and must wait until a segment is free or its own parts are covered. */
  readonly #held = new Set<Attached>();
  readonly #attached = new Map<string, Attached>();
  readonly #buffer: Buffer;
  readonly #stopping = new AbortController();
  readonly #toAnswer: TakenPart[] = [];
  readonly #stuck: StuckParts;
  #active: Active | undefined;
  #tail: LogScan['tail'];
  #state: 'open' | 'stopped' | 'closed' = 'open';
  #pumping: Promise<void> | undefined;
  #carrying: Promise<readonly string[]> | undefined;
  #resuming: Promise<void> | undefined;
  #growAgainMs = Number.NEGATIVE_INFINITY;
  #counts = { frames: 0, commits: 0, cuts: 0, carries: 0 };

  private constructor(options: LogOptions, buffer: Buffer, scan: LogScan, stuck: StuckParts) {
    const { disk, directory, limits } = options;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#segments = new Segments(disk, directory, limits, scan, () => this.#retryHeld());
    this.#content = new LogContent(scan, this.#segments);
    this.#tail = scan.tail;
    this.#stuck = stuck;
    this.#buffer = buffer;
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
    for (const path of scan.stubs) await disk.remove(path);
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
    try {
      await log.#segments.makeFirst();
    } catch (error) {
      if (!isFull(error) || log.#segments.free === 0) throw error;
    }
    if (scan.nextNumber === 1) await log.#beginFirst();
    log.#release();
    return log;
  }

  /** From here on, a log that is missing was lost. */
  async #beginFirst(): Promise<void> {
    const path = this.#segments.take(true);
    assert(path !== undefined, 'a new log has segments');
    await this.#begin(path, false);
  }

  get stats(): LogStats {
    return {
      ...this.#counts,
      segmentsLive: this.#segments.live,
      segmentsFree: this.#segments.free,
      uncoveredBytes: this.#content.index.uncoveredBytes,
      handles: this.#content.index.size,
      stuckHandles: this.#stuck.handles.size,
      suspectFrames: this.#content.suspects.length,
      holes: this.#content.hole === undefined ? 0 : 1,
      writesStopped: this.#state === 'stopped',
    };
  }

  get handles(): IterableIterator<string> {
    return this.#content.index.handles();
  }

  get stuck(): StuckParts {
    return this.#stuck;
  }

  newest(handle: string): Place | undefined {
    return this.#attached.get(handle)?.newest ?? this.#content.index.newest(handle);
  }

  isUncovered(handle: string): boolean {
    return this.#content.isUncovered(handle);
  }

  isDoubtful(handle: string, covered: FramePlace | undefined): boolean {
    return this.#content.isDoubtful(this.newest(handle), covered);
  }

  /** An administrator accepts what a hole has cost. Durable with the next segment, which begins at once. */
  async acceptLoss(): Promise<void> {
    while (this.#pumping !== undefined) await this.#pumping;
    if (this.#state !== 'open') throw new AppError('storage_unavailable');
    const hole = this.#content.hole;
    this.#content.hole = undefined;
    const beginning = this.#closeActive().then(() => this.#beginSomewhere());
    // Nothing is written meanwhile.
    this.#pumping = beginning.then(() => {
      this.#pumping = undefined;
      if (this.#queue.size > 0) this.#pumping = this.#pump();
    });
    if (await beginning) return;
    this.#content.hole = hole;
    throw new AppError('storage_unavailable');
  }

  reader(): PartReader {
    return this.#segments.reader();
  }

  births(): AsyncGenerator<FoundBirth> {
    return this.#content.readBirths();
  }

  /**
   * Lets a project write.
   *
   * @param after its last part, as its opening found it: what its next part names as the one before.
   */
  attach(source: PartSource, after: Place | undefined): AttachedHandle {
    const { handle } = source;
    assert(!this.#attached.has(handle), 'a handle is attached once');
    const newest = this.#content.index.newest(handle) ?? after;
    const attached: Attached = { source, newest, seal: undefined, large: undefined, reserveBytes: 0 };
    this.#attached.set(handle, attached);
    return {
      ready: () => this.#ready(attached),
      mark: () => this.#mark(attached),
      detach: () => {
        assert(attached.large === undefined, 'nothing is on its way');
        this.#attached.delete(handle);
        this.#queue.remove(attached);
        this.#held.delete(attached);
      },
    };
  }

  #mark({ source: { handle }, newest, large }: Attached): LogMark | undefined {
    // Chunks do not count before the last one is there.
    if (large !== undefined) return large.before;
    return newest && { place: newest, bytes: this.#content.index.uncoveredBytesOf(handle) };
  }

  /** What the mark covers is durable elsewhere. Frees segments that nobody needs any more. */
  cover(handle: string, { place, bytes }: LogMark): void {
    this.#content.index.cover(handle, place, bytes);
    this.#release();
    const attached = this.#attached.get(handle);
    if (attached !== undefined && this.#held.delete(attached)) this.#ready(attached);
  }

  /** {@link cover} by what a catalog says, when the log has just been opened. */
  coverTo(handle: string, place: FramePlace): void {
    this.#content.index.cover(handle, place, 0);
    this.#release();
  }

  /** True from the part of the log on at which the oldest segment should be freed. */
  get shouldFree(): boolean {
    return this.#segments.fill >= FREE_FROM;
  }

  /** Handles whose parts keep the oldest segment from being used again. */
  pinning(): string[] {
    const oldest = this.#segments.firstLive;
    return oldest === this.#active?.number ? [] : this.#content.index.pinning(oldest);
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
    const segment = this.#segments.at(this.#segments.firstLive);
    const handles = this.pinning();
    if (segment === undefined || handles.length === 0) return [];
    const failed: string[] = [];
    await using reader = this.reader();
    const { index } = scanFrames(await reader.preload(segment), segment, segment.end);
    for (let at = 0; at < handles.length; at += CARRY_BATCH) {
      const batch: Carried[] = [];
      for (const handle of handles.slice(at, at + CARRY_BATCH)) {
        const carried = await this.#carriedOf(reader, segment, handle, index.get(handle)?.last);
        if (carried !== undefined) batch.push(carried);
      }
      const files = batch.map((one) => ({
        handle: one.handle,
        segment: one.segment,
        content: encodeCarried(one),
      }));
      const outcomes = files.length === 0 ? [] : await target.write(files);
      for (const [one, file] of files.entries()) {
        if (outcomes[one] === undefined) continue;
        await this.#stuck.put(file);
        failed.push(file.handle);
      }
      const next = this.#segments.after(segment.number);
      const bytesOf = new Map(batch.map(({ handle, parts }) => [handle, bodyBytes(parts)]));
      for (const handle of handles.slice(at, at + CARRY_BATCH))
        this.#content.index.coverSegment(handle, segment.number, next, bytesOf.get(handle) ?? 0);
      this.#counts.carries += files.length;
    }
    this.#release();
    return failed;
  }

  /**
   * What pins a segment of a handle; undefined when it has no part there. What cannot be read is missed at
   * the opening.
   */
  async #carriedOf(
    reader: PartReader,
    { number, id }: LiveSegment,
    handle: string,
    found: Place | undefined,
  ): Promise<Carried | undefined> {
    const newest = this.#content.index.newest(handle);
    const oldest = this.#content.index.oldest(handle);
    const last = newest?.segment === number ? newest : found;
    if (oldest === undefined || last === undefined || comparePlaces(last, oldest) < 0) return undefined;
    const parts = await reader.within(handle, last, oldest);
    const { storageId } = this.#options;
    return { storageId, handle, segment: number, segmentId: id, newest: last, parts };
  }

  /** Refuses what waits for a segment: none can be freed. */
  refuseHeld(error: AppError): void {
    for (const attached of [...this.#held]) {
      this.#held.delete(attached);
      attached.source.refuse(error);
      this.#refuseLarge(attached, error);
      if (attached.source.makesRoom) this.#ready(attached);
    }
  }

  /**
   * Ends writing. What waits is refused. The last frame is followed by an empty one, so that damage to it is
   * noticed.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'closed') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'closed';
    this.#stopping.abort();
    this.#refuseAll(new AppError('storage_unavailable'));
    await this.#pumping;
    await this.#resuming;
    await this.#carrying?.catch(() => undefined);
    await this.#segments.settled();
    const active = this.#active;
    this.#active = undefined;
    if (active === undefined) return;
    if (wasOpen && active.lastParts.length > 0) await this.#writeEnd(active).catch(() => undefined);
    await active.file.close().catch(() => undefined);
  }

  async #writeEnd(active: Active): Promise<void> {
    const bytes = frameBytes(0, active.lastParts.length, 0);
    if (this.#blocksLeft(active) < blocksOf(bytes)) return;
    const { frame } = this.#frameWriter(active, 0).finish();
    await active.file.writeDurably(active.block * BLOCK_BYTES, frame);
  }

  #ready(attached: Attached): void {
    if (this.#state !== 'open') {
      attached.source.refuse(new AppError('storage_unavailable', { retryAfterS: 1 }));
      return;
    }
    if (this.#held.has(attached)) {
      if (!attached.source.makesRoom) return;
      this.#held.delete(attached);
    }
    this.#queue.add(attached);
    this.#pumping ??= this.#pump();
  }

  /** Writes what waits, frame by frame, until nothing does. Never rejects but for a defect. */
  async #pump(): Promise<void> {
    // What is committed in the same turn of the event loop goes into the same frame.
    await setImmediate();
    while (this.#queue.size > 0 && this.#state === 'open') {
      const hasRoom = this.#hasRoom() || (await this.#secureRoom());
      if (!hasRoom) continue;
      const active = this.#active as Active;
      const group = this.#take(active);
      if (group.length > 0) await this.#write(active, group);
    }
    this.#answer();
    // In the same turn in which nothing was found waiting: who is ready now must start the pump again.
    this.#pumping = undefined;
  }

  #answer(): void {
    for (const part of this.#toAnswer.splice(0)) part.answer();
  }

  #blocksLeft(active: Active): number {
    return this.#options.limits.segmentBytes / BLOCK_BYTES - active.block;
  }

  /** Bytes of bodies that the next frame may have, when it has so many parts. */
  #bodyBytesLeft(active: Active, parts: number): number {
    const left = this.#blocksLeft(active) * BLOCK_BYTES - frameBytes(parts, active.lastParts.length, 0);
    return Math.min(left, this.#options.limits.frameBytes);
  }

  /** Whether the present segment has room for another frame. */
  #hasRoom(): boolean {
    const active = this.#active;
    if (active === undefined || active.isReserve) return false;
    return this.#bodyBytesLeft(active, 1) >= this.#options.limits.chunkBytes;
  }

  /**
   * Finds room for the next frame before anything is taken or sealed for it. Where there is none, those who
   * wait are held, or refused.
   *
   * @returns whether there is room.
   */
  async #secureRoom(): Promise<boolean> {
    this.#answer();
    const segments = this.#segments;
    const full = await this.#growIfNeeded();
    const present = this.#active;
    const fits = present !== undefined && this.#bodyBytesLeft(present, 1) >= this.#options.limits.chunkBytes;
    if (present?.isReserve === true && segments.isReserveWhole) present.isReserve = false;
    if (fits && !present.isReserve) return true;
    const path = segments.take(false);
    if (path !== undefined) return this.#rotateTo(path, false);
    this.#options.observer?.onPressure?.(undefined);
    this.#holdOrRefuse(full);
    if (this.#queue.size === 0) return false;
    if (fits && present.isReserve) return true;
    const reserved = segments.take(true);
    if (reserved !== undefined) return this.#rotateTo(reserved, true);
    this.#refuseAll(full ?? new AppError('disk_full'));
    return false;
  }

  /** @returns why no segment can be made, when the disk is full. */
  async #growIfNeeded(): Promise<AppError | undefined> {
    const segments = this.#segments;
    if (!segments.mayGrow || segments.hasUnreserved) return undefined;
    const nowMs = this.#clock.monotonic();
    if (nowMs < this.#growAgainMs) return new AppError('disk_full');
    try {
      // A second one, when the reserve itself is not whole.
      while (segments.mayGrow && !segments.hasUnreserved) await segments.grow();
      return undefined;
    } catch (error) {
      this.#growAgainMs = nowMs + RETRY_MS;
      return isFull(error) ? (error as AppError) : new AppError('storage_unavailable', { cause: error });
    }
  }

  /**
   * Without a free segment, only what makes room is taken: the others are refused on a full disk, and wait
   * otherwise.
   */
  #holdOrRefuse(full: AppError | undefined): void {
    this.#queue.keep((attached) => {
      if (full !== undefined) attached.source.refuse(full);
      if (attached.source.makesRoom) return true;
      if (full === undefined) this.#held.add(attached);
      else this.#refuseLarge(attached, full);
      return false;
    });
  }

  /** Chunks without the last one never count, so a commit that is half written may still be refused. */
  #refuseLarge(attached: Attached, error: AppError): void {
    const { large } = attached;
    attached.large = undefined;
    large?.part.refused(error);
  }

  async #rotateTo(path: string, isReserve: boolean): Promise<boolean> {
    await this.#closeActive();
    if (await this.#begin(path, isReserve).catch((error: unknown) => this.#gaveBack(path, error)))
      return true;
    return (await this.#beginSomewhere()) || this.#stop([]);
  }

  #gaveBack(path: string, error: unknown): false {
    this.#segments.giveBack(path);
    this.#options.observer?.onCut?.(error);
    return false;
  }

  async #closeActive(): Promise<void> {
    const active = this.#active;
    this.#active = undefined;
    await active?.file.close().catch(() => undefined);
  }

  /** Begins a segment in any file that is free, or in a new one. */
  async #beginSomewhere(): Promise<boolean> {
    const segments = this.#segments;
    if (segments.free === 0 && segments.mayGrow) await segments.grow().catch(() => undefined);
    const unreserved = segments.take(false);
    const path = unreserved ?? segments.take(true);
    if (path === undefined) return false;
    return this.#begin(path, unreserved === undefined).catch((error: unknown) => this.#gaveBack(path, error));
  }

  /**
   * Makes the header of a new segment durable: it names the last frame that counts, and all behind that never
   * happened.
   */
  async #begin(path: string, isReserve: boolean): Promise<true> {
    const { disk, storageId } = this.#options;
    const firstLive = this.#segments.firstLive;
    const number = this.#segments.takeNumber();
    const id = randomBytes(ID_BYTES);
    const cut = this.#tail?.cut;
    const isCutLive = cut !== undefined && cut.segment >= firstLive;
    const index = isCutLive ? [...(this.#tail?.index.values() ?? [])] : [];
    const header = {
      storageId,
      number,
      id,
      firstLive: Math.min(firstLive, number),
      cut,
      hole: this.#content.hole,
    };
    const blocks = encodeHeader(header, index);
    const file = await disk.openLogFile(path);
    try {
      await file.writeDurably(0, blocks);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
    const firstFrame = blocks.length / BLOCK_BYTES;
    this.#segments.add({ number, id, path, firstFrame, end: undefined }, cut);
    this.#active = {
      number,
      id,
      file,
      index: new Map(),
      block: firstFrame,
      lastFrame: 0,
      lastHash: cut?.hash ?? NO_HASH,
      lastParts: [],
      isReserve,
    };
    if (!isReserve) {
      for (const attached of this.#attached.values()) attached.reserveBytes = 0;
      this.#retryHeld();
    }
    this.#release();
    // In the background, so that the next segment is there when it is needed.
    if (this.#segments.mayGrow && !this.#segments.hasUnreserved) this.#segments.grow().catch(() => undefined);
    if (this.shouldFree) this.#options.observer?.onPressure?.(undefined);
    return true;
  }

  /** Asks who waits, in turn, for their parts of the next frame. */
  #take(active: Active): Sending[] {
    const { chunkBytes } = this.#options.limits;
    const group: Sending[] = [];
    let left = this.#bodyBytesLeft(active, 1);
    this.#queue.round(
      left,
      () => left < chunkBytes || group.length >= FRAME_PARTS_MAX,
      (attached, max) => {
        const sending = this.#takeFrom(active, attached, Math.min(max, left));
        if (sending === undefined) return undefined;
        group.push(sending);
        const taken = sending.bytes + ENTRY_BYTES + REPEAT_BYTES;
        left -= taken;
        return taken;
      },
    );
    return group;
  }

  #takeFrom(active: Active, attached: Attached, bytesMax: number): Sending | undefined {
    const { source, large } = attached;
    if (large !== undefined && active.isReserve) {
      this.#held.add(attached);
      return undefined;
    }
    if (large !== undefined) return this.#nextChunk(attached, large);
    if (active.isReserve && attached.reserveBytes > this.#shareOfReserve()) {
      source.refuse(new AppError('disk_full'));
      if (source.makesRoom) this.#held.add(attached);
      return undefined;
    }
    if (!active.isReserve && !source.makesRoom && this.#isOverShare(attached)) {
      this.#held.add(attached);
      this.#options.observer?.onPressure?.(source.handle);
      return undefined;
    }
    const part = source.take(bytesMax, active.isReserve);
    if (part === undefined) return undefined;
    const clear = part.birth && encodeBirth(part.birth);
    const bytes = part.plaintext.reduce((sum, piece) => sum + piece.length, clear?.length ?? 0);
    if (bytes > Math.max(bytesMax, this.#options.limits.chunkBytes)) {
      assert(part.kind === 'data', 'only data comes in chunks');
      attached.large = {
        part,
        plaintext: Buffer.concat(part.plaintext),
        before: this.#mark(attached),
        sent: 0,
        chunks: 0,
      };
      return this.#nextChunk(attached, attached.large);
    }
    const { kind, plaintext } = part;
    return { attached, part, kind, chunks: 0, clear, plaintext, bytes, isLast: true };
  }

  #nextChunk(attached: Attached, large: Large): Sending {
    const { chunkBytes } = this.#options.limits;
    const { part, plaintext, sent, chunks } = large;
    const piece = plaintext.subarray(sent, sent + chunkBytes);
    const isLast = sent + piece.length === plaintext.length;
    return {
      attached,
      part,
      kind: isLast ? 'data' : 'chunk',
      chunks: isLast ? chunks : 0,
      clear: undefined,
      plaintext: [piece],
      bytes: piece.length,
      isLast,
    };
  }

  #shareOfReserve(): number {
    const { segmentBytes } = this.#options.limits;
    return (2 * segmentBytes) / SHARES;
  }

  /**
   * When the log is nearly full, who has most uncovered bytes waits first: the share shrinks with what is
   * left.
   */
  #isOverShare({ source: { handle } }: Attached): boolean {
    const { fill } = this.#segments;
    if (fill < WAIT_FROM) return false;
    const { segmentBytes, segmentsMax } = this.#options.limits;
    const share = ((Math.max(0, 1 - fill) / (1 - WAIT_FROM)) * segmentBytes * segmentsMax) / SHARES;
    return this.#content.index.uncoveredBytesOf(handle) > Math.max(share, segmentBytes / SHARES);
  }

  #frameWriter(active: Active, parts: number): FrameWriter {
    return new FrameWriter(
      this.#buffer,
      {
        number: active.block,
        previousNumber: active.lastFrame,
        segment: active.number,
        segmentId: active.id,
        previousHash: active.lastHash,
        repeats: active.lastParts,
      },
      parts,
    );
  }

  async #write(active: Active, group: readonly Sending[]): Promise<void> {
    const number = active.block;
    const writer = this.#frameWriter(active, group.length);
    const tags = group.map((sending) => this.#seal(active, writer, number, sending));
    const { frame, hash } = writer.finish();
    // From here on the number is used up, whatever becomes of the frame.
    active.block += frame.length / BLOCK_BYTES;
    const startMs = this.#clock.monotonic();
    try {
      const written = active.file.writeDurably(number * BLOCK_BYTES, frame);
      this.#answer();
      await written;
    } catch (error) {
      await this.#cut(group, error);
      return;
    }
    active.lastFrame = number;
    active.lastHash = hash;
    active.lastParts = group.map(({ attached }, at) => ({
      handle: attached.source.handle,
      tag: tags[at] as Buffer,
    }));
    const cut: Cut = { segment: active.number, segmentId: active.id, frame: number, hash };
    this.#tail = { cut, index: active.index };
    const commits = this.#publish(active, number, group, tags);
    this.#counts.frames++;
    this.#counts.commits += commits;
    this.#options.observer?.onFrame?.(commits, frame.length, (this.#clock.monotonic() - startMs) / 1_000);
  }

  #seal(active: Active, writer: FrameWriter, number: number, sending: Sending): Buffer {
    const { attached, part, kind, chunks, clear, plaintext, bytes } = sending;
    const { handle } = attached.source;
    const { keyVersion } = part;
    const room = writer.part({ handle, kind, chunks, keyVersion, bytes, previous: attached.newest });
    if (kind === 'gone') NO_TAG.copy(room.tag);
    else sealPart(this.#sealOf(active, attached, keyVersion), number, room.head, plaintext, clear, room);
    return Buffer.from(room.tag);
  }

  /** Derived once for a project and a use of a segment. */
  #sealOf(active: Active, attached: Attached, version: number): PartSeal {
    const known = attached.seal;
    if (known !== undefined && known.version === version && known.segmentId === active.id) return known.seal;
    const { handle, project, keys } = attached.source;
    const key = partKey(keys, version, active.id, handle);
    assert(key !== undefined, 'the current version has a key');
    const seal = { key, aad: aadStart(project, this.#options.storageId, active.id) };
    attached.seal = { segmentId: active.id, version, seal };
    return seal;
  }

  #publish(active: Active, frame: number, group: readonly Sending[], tags: readonly Buffer[]): number {
    let commits = 0;
    for (const [at, { attached, part, kind, bytes, plaintext, isLast }] of group.entries()) {
      const { handle } = attached.source;
      const place = { segment: active.number, frame, tag: tags[at] as Buffer };
      withPart(active.index, { handle, kind, bytes }, place);
      attached.newest = place;
      if (kind === 'gone') {
        this.#content.index.remove(handle);
        this.#content.births.delete(handle);
      } else this.#content.index.append(handle, place, bytes);
      if (kind === 'birth') this.#content.births.set(handle, place);
      if (active.isReserve) attached.reserveBytes += bytes;
      if (!isLast) {
        const large = attached.large as Large;
        large.sent += plaintext[0]?.length ?? 0;
        large.chunks++;
        continue;
      }
      attached.large = undefined;
      commits += part.commits;
      part.durable(place);
      this.#toAnswer.push(part);
    }
    return commits;
  }

  /**
   * A frame could not be written, and it is not known what of it is on the disk. A new segment says that it
   * never happened; once that is durable, its commits are refused for certain. Until then nothing is written.
   */
  async #cut(group: readonly Sending[], error: unknown): Promise<void> {
    this.#counts.cuts++;
    this.#options.observer?.onCut?.(error);
    for (const { attached } of group) attached.large = undefined;
    await this.#closeActive();
    if (await this.#beginSomewhere()) this.#refuseGroup(group, error);
    else this.#stop(group, error);
  }

  #refuseGroup(group: readonly Sending[], cause: unknown): void {
    const error = new AppError('storage_unavailable', { cause, retryAfterS: 1 });
    for (const { part } of group) part.refused(error);
  }

  /** No segment can be begun: nothing is written until one can. */
  #stop(group: readonly Sending[], error?: unknown): false {
    if (this.#state !== 'open') {
      for (const { part } of group) part.unknown(new AppError('storage_unavailable', { cause: error }));
      return false;
    }
    this.#state = 'stopped';
    this.#options.observer?.onStopped?.(error);
    this.#refuseAll(new AppError('storage_unavailable', { cause: error, retryAfterS: 1 }));
    this.#resuming = this.#resume(group, error);
    return false;
  }

  async #resume(group: readonly Sending[], error: unknown): Promise<void> {
    const wait = this.#options.wait ?? ((ms, signal) => setTimeout(ms, undefined, { signal, ref: false }));
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await wait(RETRY_MS, signal).catch(() => undefined);
      if (signal.aborted) break;
      if (!(await this.#beginSomewhere())) continue;
      this.#refuseGroup(group, error);
      if (this.#state === 'stopped') this.#state = 'open';
      this.#options.observer?.onResumed?.();
      return;
    }
    for (const { part } of group) part.unknown(new AppError('storage_unavailable', { cause: error }));
  }

  #refuseAll(error: AppError): void {
    const waiting = [...this.#queue.items(), ...this.#held];
    this.#queue.keep(() => false);
    this.#held.clear();
    for (const attached of waiting) {
      attached.source.refuse(error);
      this.#refuseLarge(attached, error);
      // On a full disk deletes wait for the next segment.
      if (attached.source.makesRoom) this.#held.add(attached);
    }
  }

  /** Frees the oldest segments as long as nobody needs them. */
  #release(): void {
    let isAnyFree = false;
    for (;;) {
      const oldest = this.#segments.firstLive;
      const isInUse = oldest === this.#active?.number || this.#segments.at(oldest) === undefined;
      if (isInUse || this.#content.index.isPinned(oldest)) break;
      this.#segments.release(oldest);
      isAnyFree = true;
    }
    if (isAnyFree) {
      this.#content.index.forgetBefore(this.#segments.firstLive);
      for (const [handle, { segment }] of this.#content.births)
        if (segment < this.#segments.firstLive) this.#content.births.delete(handle);
    }
    if (isAnyFree) this.#retryHeld();
  }

  /** Those who wait for a segment, or for their own parts to be covered, try again. */
  #retryHeld(): void {
    if (this.#held.size === 0 || this.#state !== 'open') return;
    const held = [...this.#held];
    this.#held.clear();
    for (const attached of held) this.#queue.add(attached);
    this.#pumping ??= this.#pump();
  }
}

function bodyBytes(parts: readonly SealedPart[]): number {
  return parts.reduce((sum, { body }) => sum + body.length, 0);
}
