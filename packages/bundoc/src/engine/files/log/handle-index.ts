import { comparePlaces, type FramePlace, type Place, TAG_BYTES } from './layout.ts';
import type { SegmentIndexEntry } from './segment-header.ts';

/**
 * `segment(6) | frame(4) | tag(16)` of the newest part, `segment(6) | frame(4)` of the oldest uncovered,
 * `bytes(6)`.
 */
const ROW_BYTES = 42;
const NEWEST_FRAME = 6;
const NEWEST_TAG = 10;
const OLDEST = NEWEST_TAG + TAG_BYTES;
const OLDEST_FRAME = OLDEST + 6;
const UNCOVERED_BYTES = OLDEST_FRAME + 4;
const ROWS_AT_FIRST = 64;

/**
 * The places of the newest and the oldest uncovered part of each handle. This is all that the log keeps of a
 * project in memory, about 120 bytes. Walking back through the entries finds all parts between the two.
 *
 * One class, because the places of a handle, its pins and the sum of bytes change together.
 */
export class HandleIndex {
  readonly #rows = new Map<string, number>();
  readonly #unused: number[] = [];
  /** The number of handles whose oldest uncovered part is in a segment. */
  readonly #pins = new Map<number, number>();
  #table = Buffer.alloc(ROWS_AT_FIRST * ROW_BYTES);
  #uncoveredBytes = 0;

  /** Number of known handles. */
  get size(): number {
    return this.#rows.size;
  }

  /** Uncovered bytes of bodies, of all handles. */
  get uncoveredBytes(): number {
    return this.#uncoveredBytes;
  }

  handles(): IterableIterator<string> {
    return this.#rows.keys();
  }

  newest(handle: string): Place | undefined {
    const row = this.#rows.get(handle);
    if (row === undefined) return undefined;
    const segment = this.#table.readUIntBE(row, 6);
    if (segment === 0) return undefined;
    const tag = Buffer.from(this.#table.subarray(row + NEWEST_TAG, row + NEWEST_TAG + TAG_BYTES));
    return { segment, frame: this.#table.readUInt32BE(row + NEWEST_FRAME), tag };
  }

  /** A lower bound of the oldest uncovered part's place; undefined when everything is covered. */
  oldest(handle: string): FramePlace | undefined {
    const row = this.#rows.get(handle);
    return row === undefined ? undefined : this.#oldestOf(row);
  }

  /** Uncovered bytes of the handle's bodies. */
  uncoveredBytesOf(handle: string): number {
    const row = this.#rows.get(handle);
    return row === undefined ? 0 : this.#table.readUIntBE(row + UNCOVERED_BYTES, 6);
  }

  /** Records a durable part. */
  append(handle: string, place: Place, bytes: number): void {
    const row = this.#rowOf(handle);
    this.#setNewest(row, place);
    if (this.#oldestOf(row) === undefined) this.#setOldest(row, place);
    this.#addBytes(row, bytes);
  }

  /** Records the parts of a handle in a segment; called in the order of segments. */
  add({ handle, firstFrame, last, bytes }: SegmentIndexEntry): void {
    const row = this.#rowOf(handle);
    this.#setNewest(row, last);
    if (this.#oldestOf(row) === undefined) this.#setOldest(row, { segment: last.segment, frame: firstFrame });
    this.#addBytes(row, bytes);
  }

  /**
   * Records that the parts of a handle up to and including `place` are durable elsewhere.
   *
   * @param bytes length of their bodies, as far as known.
   */
  cover(handle: string, place: FramePlace, bytes: number): void {
    const row = this.#rows.get(handle);
    const oldest = row === undefined ? undefined : this.#oldestOf(row);
    if (row === undefined || oldest === undefined || comparePlaces(place, oldest) < 0) return;
    const newest = { segment: this.#table.readUIntBE(row, 6), frame: this.#table.readUInt32BE(row + 6) };
    if (comparePlaces(place, newest) >= 0) {
      this.#setOldest(row, undefined);
      this.#addBytes(row, -this.#table.readUIntBE(row + UNCOVERED_BYTES, 6));
      return;
    }
    this.#setOldest(row, { segment: place.segment, frame: place.frame + 1 });
    this.#addBytes(row, -Math.min(bytes, this.#table.readUIntBE(row + UNCOVERED_BYTES, 6)));
  }

  /**
   * Records that the parts of a handle up to the end of a segment are durable elsewhere.
   *
   * @param next the first segment after it.
   */
  coverSegment(handle: string, segment: number, next: number, bytes: number): void {
    const row = this.#rows.get(handle);
    const oldest = row === undefined ? undefined : this.#oldestOf(row);
    if (row === undefined || oldest === undefined || oldest.segment > segment) return;
    if (this.#table.readUIntBE(row, 6) <= segment) {
      this.cover(handle, { segment, frame: 0xffff_ffff }, 0);
      return;
    }
    this.#setOldest(row, { segment: next, frame: 0 });
    this.#addBytes(row, -Math.min(bytes, this.#table.readUIntBE(row + UNCOVERED_BYTES, 6)));
  }

  /** Removes a handle with its parts. */
  remove(handle: string): void {
    const row = this.#rows.get(handle);
    if (row === undefined) return;
    this.#setOldest(row, undefined);
    this.#addBytes(row, -this.#table.readUIntBE(row + UNCOVERED_BYTES, 6));
    this.#table.fill(0, row, row + ROW_BYTES);
    this.#rows.delete(handle);
    this.#unused.push(row);
  }

  /** True while a handle has its oldest uncovered part in the segment. */
  isPinned(segment: number): boolean {
    return (this.#pins.get(segment) ?? 0) > 0;
  }

  /** Handles whose oldest uncovered part is in the segment. */
  pinning(segment: number): string[] {
    if (!this.isPinned(segment)) return [];
    const handles: string[] = [];
    for (const [handle, row] of this.#rows)
      if (this.#table.readUIntBE(row + OLDEST, 6) === segment) handles.push(handle);
    return handles;
  }

  /** Drops handles whose parts are all covered and before a segment: no walk can lead there. */
  forgetBefore(segment: number): void {
    for (const [handle, row] of this.#rows)
      if (this.#oldestOf(row) === undefined && this.#table.readUIntBE(row, 6) < segment) this.remove(handle);
  }

  #oldestOf(row: number): FramePlace | undefined {
    const segment = this.#table.readUIntBE(row + OLDEST, 6);
    return segment === 0 ? undefined : { segment, frame: this.#table.readUInt32BE(row + OLDEST_FRAME) };
  }

  #setNewest(row: number, { segment, frame, tag }: Place): void {
    this.#table.writeUIntBE(segment, row, 6);
    this.#table.writeUInt32BE(frame, row + NEWEST_FRAME);
    tag.copy(this.#table, row + NEWEST_TAG);
  }

  #setOldest(row: number, place: FramePlace | undefined): void {
    const before = this.#table.readUIntBE(row + OLDEST, 6);
    const now = place?.segment ?? 0;
    this.#table.writeUIntBE(now, row + OLDEST, 6);
    this.#table.writeUInt32BE(place?.frame ?? 0, row + OLDEST_FRAME);
    if (before === now) return;
    if (before !== 0) this.#pin(before, -1);
    if (now !== 0) this.#pin(now, 1);
  }

  #pin(segment: number, by: 1 | -1): void {
    const pins = (this.#pins.get(segment) ?? 0) + by;
    if (pins === 0) this.#pins.delete(segment);
    else this.#pins.set(segment, pins);
  }

  #addBytes(row: number, bytes: number): void {
    const now = this.#table.readUIntBE(row + UNCOVERED_BYTES, 6) + bytes;
    this.#table.writeUIntBE(now, row + UNCOVERED_BYTES, 6);
    this.#uncoveredBytes += bytes;
  }

  #rowOf(handle: string): number {
    const known = this.#rows.get(handle);
    if (known !== undefined) return known;
    const row = this.#unused.pop() ?? (this.#rows.size + this.#unused.length) * ROW_BYTES;
    if (row + ROW_BYTES > this.#table.length) {
      const larger = Buffer.alloc(this.#table.length * 2);
      this.#table.copy(larger);
      this.#table = larger;
    }
    this.#rows.set(handle, row);
    return row;
  }
}
