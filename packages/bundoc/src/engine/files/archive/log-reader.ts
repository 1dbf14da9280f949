import { AppError } from '@bundoc/shared/contract/app-error';
import type { ReadableFile } from '../disk/disk.ts';
import { decodeHead, isFrameWhole, type SealedEntry } from '../log/frame.ts';
import { BLOCK_BYTES, blocksOf, HASH_BYTES } from '../log/layout.ts';
import type { LogEnd, ShippableSegment } from '../log/log-api.ts';
import { decodeHeader } from '../log/segment-header.ts';
import type { ReadingDisk } from './base-reader.ts';
import type { ObjectBuilder } from './object.ts';
import type { ShippedPlace } from './position.ts';

/** Bytes of a frame, or of a damaged stretch of the log. */
export interface ReadFrame {
  readonly block: number;
  readonly bytes: Buffer;
  /** The hash at its end; undefined for a damaged stretch. */
  readonly hash: Buffer | undefined;
  /** The block after it. */
  readonly next: number;
  /** Its parts; none of a damaged stretch. */
  readonly entries: readonly SealedEntry[];
}

/** Maximum size of a log's file. */
const FILE_BYTES_MAX = 33_554_432;

/** Reads a file of the log that others append to. */
class SegmentReader implements Disposable {
  readonly #file: ReadableFile;
  readonly #segment: ShippableSegment;

  private constructor(file: ReadableFile, segment: ShippableSegment) {
    this.#file = file;
    this.#segment = segment;
  }

  /** @returns undefined when there is no such file. */
  static async open(disk: ReadingDisk, segment: ShippableSegment): Promise<SegmentReader | undefined> {
    const file = await disk.openToRead(segment.path, FILE_BYTES_MAX);
    return file && new SegmentReader(file, segment);
  }

  /** Header, index and remembered handles, as they are. */
  async header(): Promise<Buffer> {
    return this.#read(0, this.#segment.firstFrame * BLOCK_BYTES);
  }

  /**
   * The frame at a block, up to the last one of the segment. Where none is whole, it is everything from there
   * up to the end, so that the damage is the same in a restored log.
   *
   * @returns undefined behind the last frame.
   */
  async frame(block: number): Promise<ReadFrame | undefined> {
    const { lastFrame } = this.#segment;
    if (lastFrame === undefined || block > lastFrame) return undefined;
    const start = await this.#read(block * BLOCK_BYTES, BLOCK_BYTES);
    const length = start.length < BLOCK_BYTES ? 0 : start.readUInt32BE(4);
    const rest = this.#file.bytes - block * BLOCK_BYTES;
    if (length <= rest) {
      const bytes = await this.#read(block * BLOCK_BYTES, length);
      const head = decodeHead(bytes, 0);
      if (head?.number === block && head.bytes === length && isFrameWhole(bytes, 0, head)) {
        const hash = Buffer.from(bytes.subarray(length - HASH_BYTES));
        return { block, bytes, hash, next: block + blocksOf(length), entries: head.entries };
      }
    }
    const bytes = await this.#read(block * BLOCK_BYTES, rest);
    return { block, bytes, hash: undefined, next: lastFrame + 1, entries: [] };
  }

  /** @throws AppError `storage_unavailable` when the file was used again: what was read is unknown. */
  async requireSame(): Promise<void> {
    const header = decodeHeader(await this.#read(0, BLOCK_BYTES));
    if (header?.id.equals(this.#segment.id) !== true)
      throw new AppError('storage_unavailable', { cause: new Error('a segment was used again') });
  }

  async #read(offset: number, bytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafeSlow(bytes);
    return target.subarray(0, await this.#file.readInto(target, offset));
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

export interface FrameHooks {
  /** Called with the parts of a frame before it is added: it may add records, too. */
  before(parts: readonly SealedEntry[]): Promise<void>;
  /** Called for each part once it was added. */
  after(part: SealedEntry): void;
}

/** What {@link addFrames} continues. */
export interface FramesTarget {
  /** The last place that was shipped; undefined for none. */
  log: ShippedPlace | undefined;
  /** The object that has the header of a segment. */
  readonly segments: Map<number, number>;
}

/**
 * Adds what follows in the log to an object until it has so many bytes.
 *
 * @param n the object's number.
 * @returns whether more is left.
 * @throws AppError of the disk.
 */
export async function addFrames(
  disk: ReadingDisk,
  { segments }: LogEnd,
  {
    builder,
    bytesMax,
    n,
  }: { readonly builder: ObjectBuilder; readonly bytesMax: number; readonly n: number },
  target: FramesTarget,
  { before, after }: FrameHooks,
): Promise<boolean> {
  for (const segment of segments) {
    const { number, firstFrame, lastFrame } = segment;
    const from = target.log;
    if (from !== undefined && number < from.segment) continue;
    const isBegun = from?.segment === number;
    let block = isBegun ? from.next : firstFrame;
    if (isBegun && (lastFrame === undefined || block > lastFrame)) continue;
    if (builder.bytes >= bytesMax) return true;
    using reader = await SegmentReader.open(disk, segment);
    if (reader === undefined) throw new AppError('storage_unavailable');
    const segmentId = segment.id.toString('hex');
    if (!isBegun) {
      builder.add({ kind: 'segment', number, id: segment.id, header: await reader.header() });
      target.segments.set(number, n);
      target.log = { segment: number, segmentId, frame: 0, next: firstFrame, frameHash: NO_FRAME };
    }
    let isMore = false;
    for (;;) {
      isMore = builder.bytes >= bytesMax;
      const frame = isMore ? undefined : await reader.frame(block);
      if (frame === undefined) break;
      await before(frame.entries);
      builder.add({ kind: 'frame', block, bytes: frame.bytes });
      for (const entry of frame.entries) after(entry);
      const frameHash = frame.hash?.toString('hex') ?? NO_FRAME;
      target.log = { segment: number, segmentId, frame: block, next: frame.next, frameHash };
      block = frame.next;
    }
    await reader.requireSame();
    if (isMore) return true;
  }
  return false;
}

/** For a place without a whole frame. */
const NO_FRAME = '0'.repeat(2 * HASH_BYTES);

/** Whether the log still has the place up to which it was shipped, and everything after it. */
export async function isContinued(
  disk: ReadingDisk,
  segments: readonly ShippableSegment[],
  { segment, segmentId, frame, frameHash }: ShippedPlace,
): Promise<boolean> {
  const found = segments.find(({ number }) => number === segment);
  if (found?.id.toString('hex') !== segmentId) return false;
  if (frame === 0 || frameHash === NO_FRAME) return true;
  if (found.lastFrame === undefined || found.lastFrame < frame) return false;
  using reader = await SegmentReader.open(disk, found);
  return (await reader?.frame(frame))?.hash?.toString('hex') === frameHash;
}
