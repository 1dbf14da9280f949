import { comparePlaces, type FramePlace, HANDLE_BYTES, type Place, TAG_BYTES } from './layout.ts';
import { REMEMBERED_BYTES, type SegmentIndexEntry } from './segment-header.ts';

/**
 * `segment(6) | frame(4) | tag(16)` of the newest part, `segment(6) | frame(4)` of the oldest uncovered,
 * `bytes(6)`, `segment(6)` whose header remembers the newest part.
 */
const ROW_BYTES = 48;
const NEWEST_FRAME = 6;
const NEWEST_TAG = 10;
const OLDEST = NEWEST_TAG + TAG_BYTES;
const OLDEST_FRAME = OLDEST + 6;
const UNCOVERED_BYTES = OLDEST_FRAME + 4;
const REMEMBERED_IN = UNCOVERED_BYTES + 6;
const ROWS_AT_FIRST = 64;

/** Handles that the next header must remember. */
export interface Unremembered {
  readonly bytes: Buffer;
  /** Whether there are no others. */
  readonly isComplete: boolean;
  /** Their rows in the index, valid until a handle is added or removed. */
  readonly rows: readonly number[];
}

/**
 * The places of the newest and the oldest uncovered part of each handle. The log keeps nothing else of a
 * project in memory: about 120 bytes. The entries of the parts between the two link them. The place of the
 * newest part stays after its segment is freed, so that a restored older folder is detected.
 */
export class HandleIndex {
  readonly #rows = new Map<string, number>();
  readonly #unused: number[] = [];
  /** The number of handles whose oldest uncovered part is in a segment. */
  readonly #pins = new Map<number, number>();
  /** The number of handles for each segment that has their newest part, or remembers it. */
  readonly #anchors = new Map<number, number>();
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

  /** Handles with an uncovered part, or one in this segment or a later one. */
  *handlesFrom(segment: number): Generator<string> {
    for (const [handle, row] of this.#rows)
      if (this.#oldestOf(row) !== undefined || this.#table.readUIntBE(row, 6) >= segment) yield handle;
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
    this.#anchor(row, -1);
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

  /** Records the newest parts of handles, as the header of a live segment remembers them. */
  remember(entries: Buffer, segment: number): void {
    for (let at = 0; at < entries.length; at += REMEMBERED_BYTES) {
      const row = this.#rowOf(entries.toString('hex', at, at + HANDLE_BYTES));
      this.#anchor(row, -1);
      entries.copy(this.#table, row, at + HANDLE_BYTES, at + REMEMBERED_BYTES);
      this.#table.writeUIntBE(segment, row + REMEMBERED_IN, 6);
      this.#anchor(row, 1);
    }
  }

  /** The number of handles whose newest part is known from this segment. */
  anchored(segment: number): number {
    return this.#anchors.get(segment) ?? 0;
  }

  /** The number of handles that the next header must remember, because they are known from freed segments. */
  unrememberedBefore(firstLive: number): number {
    let sum = 0;
    for (const [segment, count] of this.#anchors) if (segment < firstLive) sum += count;
    return sum;
  }

  /**
   * Handles that the next header must remember: their newest part is freed, and no header from `firstLive` to
   * `last` remembers it.
   *
   * @param most the number of handles that fit.
   */
  unremembered(firstLive: number, last: number, most: number): Unremembered {
    const found: [handle: string, row: number][] = [];
    // There are nearly never any, so this usually saves reading the rows.
    let isAny = false;
    for (const segment of this.#anchors.keys()) isAny ||= segment < firstLive || segment > last;
    if (!isAny) return { bytes: Buffer.alloc(0), isComplete: true, rows: [] };
    for (const one of this.#rows) {
      const [, row] = one;
      if (this.#table.readUIntBE(row, 6) >= firstLive) continue;
      const rememberedIn = this.#table.readUIntBE(row + REMEMBERED_IN, 6);
      if (rememberedIn < firstLive || rememberedIn > last) found.push(one);
    }
    const taken = found.slice(0, most);
    const bytes = Buffer.allocUnsafe(taken.length * REMEMBERED_BYTES);
    let at = 0;
    for (const [handle, row] of taken) {
      bytes.write(handle, at, 'hex');
      this.#table.copy(bytes, at + HANDLE_BYTES, row, row + OLDEST);
      at += REMEMBERED_BYTES;
    }
    return { bytes, isComplete: taken.length === found.length, rows: taken.map(([, row]) => row) };
  }

  /** The header of this segment remembers these handles now. */
  remembered({ rows }: Unremembered, segment: number): void {
    for (const row of rows) {
      this.#anchor(row, -1);
      this.#table.writeUIntBE(segment, row + REMEMBERED_IN, 6);
      this.#anchor(row, 1);
    }
  }

  #oldestOf(row: number): FramePlace | undefined {
    const segment = this.#table.readUIntBE(row + OLDEST, 6);
    return segment === 0 ? undefined : { segment, frame: this.#table.readUInt32BE(row + OLDEST_FRAME) };
  }

  #setNewest(row: number, { segment, frame, tag }: Place): void {
    this.#anchor(row, -1);
    this.#table.writeUIntBE(segment, row, 6);
    this.#table.writeUInt32BE(frame, row + NEWEST_FRAME);
    tag.copy(this.#table, row + NEWEST_TAG);
    this.#table.writeUIntBE(0, row + REMEMBERED_IN, 6);
    this.#anchor(row, 1);
  }

  /** Counts a handle for the segment from which its newest part is known. */
  #anchor(row: number, by: 1 | -1): void {
    const rememberedIn = this.#table.readUIntBE(row + REMEMBERED_IN, 6);
    count(this.#anchors, rememberedIn === 0 ? this.#table.readUIntBE(row, 6) : rememberedIn, by);
  }

  #setOldest(row: number, place: FramePlace | undefined): void {
    const before = this.#table.readUIntBE(row + OLDEST, 6);
    const now = place?.segment ?? 0;
    this.#table.writeUIntBE(now, row + OLDEST, 6);
    this.#table.writeUInt32BE(place?.frame ?? 0, row + OLDEST_FRAME);
    if (before === now) return;
    count(this.#pins, before, -1);
    count(this.#pins, now, 1);
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

/** Segment 0 stands for none. */
function count(counts: Map<number, number>, segment: number, by: 1 | -1): void {
  if (segment === 0) return;
  const sum = (counts.get(segment) ?? 0) + by;
  if (sum === 0) counts.delete(segment);
  else counts.set(segment, sum);
}
