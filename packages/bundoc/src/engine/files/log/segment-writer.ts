import { randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { frameBytes, type Repeat } from './frame.ts';
import type { Unremembered } from './handle-index.ts';
import { BLOCK_BYTES, blocksOf, ID_BYTES } from './layout.ts';
import type { LogOptions } from './log-api.ts';
import type { LogContent } from './log-content.ts';
import type { Sending } from './log-turns.ts';
import type { LogFile } from './ports.ts';
import type { LiveSegment, LogScan } from './scan.ts';
import type { SegmentIndex } from './scan-frames.ts';
import { NO_HASH, type SealedFrame, sealFrame } from './seal-frame.ts';
import { type Cut, encodeHeader, INDEX_ENTRY_BYTES, REMEMBERED_BYTES } from './segment-header.ts';
import type { Segments } from './segments.ts';

/**
 * Maximum of handles that the next header remembers, if this is enough to free a segment. More of them would
 * delay other requests.
 */
const REMEMBERED_AT_ONCE = 32_768;
/** The largest part of a segment that they take. A frame still fits beside them and the largest index. */
const REMEMBERED_PART = 0.4;

/** The current segment. */
export interface ActiveSegment {
  readonly number: number;
  readonly id: Buffer;
  readonly file: LogFile;
  readonly index: SegmentIndex;
  /** The block at which the next frame begins. */
  block: number;
  lastFrame: number;
  lastHash: Buffer;
  lastParts: readonly Repeat[];
  /** While true, the segment only takes commits that free space. */
  isReserve: boolean;
}

export interface SegmentEvents {
  readonly onBegun: (isReserve: boolean) => void;
  /** Called when segments were freed. */
  readonly onFreed: () => void;
  /** Called when no segment may begin any more. */
  readonly onLost: (error: unknown) => void;
}

/** Begins, writes, ends and frees segments, and tracks the end of the log. */
export class SegmentWriter {
  readonly #options: LogOptions;
  readonly #segments: Segments;
  readonly #content: LogContent;
  readonly #buffer: Buffer;
  readonly #events: SegmentEvents;
  /** The last valid frame, and the index of its segment. */
  #tail: LogScan['tail'];
  #active: ActiveSegment | undefined;
  #newest: number | undefined;
  #durableFirstLive: number;
  #isLost = false;

  /** @param buffer in which frames are composed. */
  constructor(
    options: LogOptions,
    buffer: Buffer,
    { tail, live, firstLive }: Pick<LogScan, 'tail' | 'live' | 'firstLive'>,
    segments: Segments,
    content: LogContent,
    events: SegmentEvents,
  ) {
    this.#options = options;
    this.#buffer = buffer;
    this.#tail = tail;
    this.#newest = live.at(-1)?.number;
    this.#durableFirstLive = firstLive;
    this.#segments = segments;
    this.#content = content;
    this.#events = events;
  }

  /** The last frame of a segment whose sync has succeeded; undefined when it has none. */
  readonly lastFrameOf = ({ number, end }: LiveSegment): number | undefined => {
    if (number === this.#active?.number) return this.#active.lastFrame || undefined;
    const last = end ?? this.#tail?.cut;
    return last?.segment === number ? last.frame : undefined;
  };

  get active(): ActiveSegment | undefined {
    return this.#active;
  }

  /** The first live segment, as the newest header has it. Later ones may have been freed since. */
  get durableFirstLive(): number {
    return this.#durableFirstLive;
  }

  /** The number of the last begun segment, in this process or before; undefined for a new log. */
  get newest(): number | undefined {
    return this.#newest;
  }

  /** Whether the oldest segment should be freed. */
  get shouldFree(): boolean {
    return this.#segments.shouldFree(this.#content.index.uncoveredBytes, this.#active?.number);
  }

  /** Maximum bytes of bodies in the next frame, if it has this many parts. */
  bodyBytesLeft(active: ActiveSegment, parts: number): number {
    const left = this.#blocksLeft(active) * BLOCK_BYTES - frameBytes(parts, active.lastParts.length, 0);
    return Math.min(left, this.#options.limits.frameBytes);
  }

  #blocksLeft(active: ActiveSegment): number {
    return this.#options.limits.segmentBytes / BLOCK_BYTES - active.block;
  }

  /** Whether another frame fits into the current segment. */
  get hasRoom(): boolean {
    const active = this.#active;
    return active !== undefined && this.bodyBytesLeft(active, 1) >= this.#options.limits.chunkBytes;
  }

  /** Seals a frame and uses up its number, whatever the outcome. */
  seal(active: ActiveSegment, group: readonly Sending[]): SealedFrame & { readonly number: number } {
    const number = active.block;
    const sealed = sealFrame(this.#buffer, active, this.#options.storageId, group);
    active.block += sealed.frame.length / BLOCK_BYTES;
    return { ...sealed, number };
  }

  /** Records a durable frame as the last valid one. */
  keep(active: ActiveSegment, { number, hash, directory }: SealedFrame & { readonly number: number }): void {
    active.lastFrame = number;
    active.lastHash = hash;
    active.lastParts = directory;
    const cut: Cut = { segment: active.number, segmentId: active.id, frame: number, hash };
    this.#tail = { cut, index: active.index };
  }

  /** Ends the log. An empty frame follows the last one, so that damage to the last one can be detected. */
  async end(): Promise<void> {
    const active = this.#active;
    if (active !== undefined && active.lastParts.length > 0 && this.#fits(active)) {
      const { number, frame } = this.seal(active, []);
      await active.file.writeDurably(number * BLOCK_BYTES, frame).catch(() => undefined);
    }
    await this.close();
  }

  /** Whether an empty frame fits. */
  #fits(active: ActiveSegment): boolean {
    return this.#blocksLeft(active) >= blocksOf(frameBytes(0, active.lastParts.length, 0));
  }

  async close(): Promise<void> {
    const active = this.#active;
    this.#active = undefined;
    await active?.file.close().catch(() => undefined);
  }

  /** Begins a segment in any free file, or in a new one. @returns false when none can begin. */
  async beginSomewhere(): Promise<boolean> {
    if (this.#isLost) return false;
    const segments = this.#segments;
    if (segments.free === 0 && segments.mayGrow) await segments.grow().catch(() => undefined);
    const unreserved = segments.take(false);
    const path = unreserved ?? segments.take(true);
    return path !== undefined && this.tryBegin(path, unreserved === undefined);
  }

  /** {@link begin}; returns the file to the free ones after a failure. */
  async tryBegin(path: string, isReserve: boolean): Promise<boolean> {
    try {
      await this.begin(path, isReserve);
      return true;
    } catch (error) {
      this.#segments.giveBack(path);
      if (!this.#isLost) this.#options.observer?.onCut?.(error);
      return false;
    }
  }

  /**
   * Makes the header of a new segment durable. It names the last valid frame; later frames never happened.
   */
  async begin(path: string, isReserve: boolean): Promise<void> {
    await this.#requireOwn();
    const { disk, storageId } = this.#options;
    const segments = this.#segments;
    const firstLive = segments.firstLive;
    const number = segments.takeNumber();
    const id = randomBytes(ID_BYTES);
    const cut = this.#tail?.cut;
    const isCutLive = cut !== undefined && cut.segment >= firstLive;
    const index = isCutLive ? [...(this.#tail?.index.values() ?? [])] : [];
    const room = this.#blocksAfter(index.length) * BLOCK_BYTES - this.#options.limits.frameBytes;
    const remembered = this.#unremembered(firstLive, isCutLive ? cut.segment : 0, room);
    const { hole } = this.#content;
    const header = { storageId, number, id, firstLive: Math.min(firstLive, number), cut, hole };
    const blocks = encodeHeader(header, index, remembered.bytes);
    const file = await disk.openLogFile(path);
    try {
      // A torn index can be made again. The remembered handles cannot, so they are written first.
      const first = remembered.rows.length === 0 ? blocks.length : BLOCK_BYTES;
      if (first < blocks.length) await file.writeDurably(first, blocks.subarray(first));
      await file.writeDurably(0, blocks.subarray(0, first));
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
    const firstFrame = blocks.length / BLOCK_BYTES;
    this.#content.index.remembered(remembered, number);
    segments.add({ number, id, path, firstFrame, end: undefined }, cut);
    this.#newest = number;
    this.#durableFirstLive = header.firstLive;
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
    this.#events.onBegun(isReserve);
    this.release();
    // In the background, so that the next segment exists when it is needed.
    if (segments.mayGrow && !segments.hasUnreserved) segments.grow().catch(() => undefined);
    if (this.shouldFree) this.#options.observer?.onPressure?.(undefined);
  }

  /** Blocks of a segment behind its header and an index of this length. */
  #blocksAfter(entries: number): number {
    const { segmentBytes } = this.#options.limits;
    return segmentBytes / BLOCK_BYTES - 2 - blocksOf(entries * INDEX_ENTRY_BYTES);
  }

  /** @throws AppError `storage_unavailable` when they do not fit, because the header would forget some. */
  #unremembered(firstLive: number, last: number, room: number): Unremembered {
    const most = Math.max(0, Math.floor(room / REMEMBERED_BYTES));
    const found = this.#content.index.unremembered(firstLive, last, most);
    if (!found.isComplete)
      throw new AppError('storage_unavailable', {
        cause: new Error('a segment cannot remember the last commits of so many projects'),
      });
    return found;
  }

  /** @throws the error of `beforeSegment`; then nothing may be written any more. */
  async #requireOwn(): Promise<void> {
    try {
      await this.#options.beforeSegment?.();
    } catch (error) {
      this.#isLost = true;
      this.#events.onLost(error);
      throw error;
    }
  }

  /**
   * Frees the oldest segments as long as they are not needed, and the next header can remember what is known
   * from them.
   */
  release(): void {
    const segments = this.#segments;
    const { index } = this.#content;
    const atMost = Math.floor((this.#options.limits.segmentBytes * REMEMBERED_PART) / REMEMBERED_BYTES);
    let isAnyFree = false;
    for (;;) {
      const oldest = segments.firstLive;
      const isInUse = oldest === this.#active?.number || segments.at(oldest) === undefined;
      if (isInUse || index.isPinned(oldest)) break;
      const waiting = index.unrememberedBefore(oldest);
      const most = waiting === 0 ? atMost : Math.min(atMost, REMEMBERED_AT_ONCE);
      if (waiting + index.anchored(oldest) > most) break;
      segments.release(oldest);
      isAnyFree = true;
    }
    if (isAnyFree) this.#events.onFreed();
  }
}
