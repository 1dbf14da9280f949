import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { ENTRY_BYTES, type Entry, REPEAT_BYTES } from './frame.ts';
import type { HandleIndex } from './handle-index.ts';
import { FRAME_PARTS_MAX, type Place } from './layout.ts';
import type { LogLimits, LogMark, LogOptions, PartSource, TakenPart } from './log-api.ts';
import { LogShares } from './log-shares.ts';
import type { PartSeal } from './part-seal.ts';
import type { LogObserver } from './ports.ts';
import type { Segments } from './segments.ts';

/** Commits up to this part of a chunk, 16 KiB, have half of each frame. */
const SMALL_PER_CHUNK = 16;
/** Bytes of a part in a frame besides its body. */
const OVERHEAD_BYTES = ENTRY_BYTES + REPEAT_BYTES;
/** A source that got no space may try again after this time, because a segment will soon be free. */
const RETRY_AFTER_S = 1;

/** A commit that is written chunk by chunk. */
interface Large {
  readonly part: TakenPart;
  readonly plaintext: Buffer;
  readonly before: LogMark | undefined;
  sent: number;
  chunks: number;
  /** Whether its last chunk is being written: the outcome of that frame decides. */
  isEnding: boolean;
}

/** A project that writes. */
export interface Attached {
  readonly source: PartSource;
  /** The subject of the last write, whose share of the log the project uses. */
  subject: string;
  newest: Place | undefined;
  seal: { readonly segmentId: Buffer; readonly version: number; readonly seal: PartSeal } | undefined;
  large: Large | undefined;
  /** Its bytes in segments of the reserve. */
  reserveBytes: number;
  /** The start of its wait by the monotonic clock, and whether it waits for its own parts. */
  held: { readonly sinceMs: number; isOwn: boolean } | undefined;
}

/** One part of the next frame. */
export interface Sending {
  readonly attached: Attached;
  readonly part: TakenPart;
  readonly kind: Entry['kind'];
  readonly chunks: number;
  readonly plaintext: readonly Buffer[];
  readonly bytes: number;
  /** Whether this frame makes the part durable, rather than a later chunk. */
  readonly isLast: boolean;
}

/**
 * The ready sources and the held ones. Half of each frame is for sources whose next commit is small, the
 * other half for sources with a large one. Each kind is served in the order of arrival, and may use space
 * that the other leaves. So a large commit delays small ones by one frame at most.
 *
 * One class, because each turn, wait and refusal of a source changes the same sums.
 */
export class LogTurns {
  readonly #limits: LogLimits;
  readonly #observer: LogObserver | undefined;
  readonly #index: HandleIndex;
  /** Ready sources in the order of arrival. Each is in one of these two sets. */
  readonly #small = new Set<Attached>();
  readonly #large = new Set<Attached>();
  /** Sources that must wait until a segment is free or their own parts are covered. */
  readonly #held = new Set<Attached>();
  readonly #attached = new Map<string, Attached>();
  readonly #clock: Clock;
  readonly #shares: LogShares;

  constructor({ limits, observer, clock = systemClock }: LogOptions, segments: Segments, index: HandleIndex) {
    this.#limits = limits;
    this.#observer = observer;
    this.#clock = clock;
    this.#shares = new LogShares(limits, segments, index, this.#attached);
    this.#index = index;
  }

  get isAnyoneWaiting(): boolean {
    return this.#small.size + this.#large.size > 0;
  }

  attach(source: PartSource, after: Place | undefined): Attached {
    const { handle } = source;
    assert(!this.#attached.has(handle), 'a handle is attached once');
    const newest = this.#index.newest(handle) ?? after;
    const attached: Attached = {
      source,
      subject: '',
      newest,
      seal: undefined,
      large: undefined,
      reserveBytes: 0,
      held: undefined,
    };
    this.#attached.set(handle, attached);
    return attached;
  }

  detach(attached: Attached): void {
    assert(attached.large === undefined, 'nothing is on its way');
    this.#attached.delete(attached.source.handle);
    this.#leave(attached);
    this.#held.delete(attached);
  }

  /** The last part of a project that writes. */
  newestOf(handle: string): Place | undefined {
    return this.#attached.get(handle)?.newest;
  }

  mark({ source: { handle }, newest, large }: Attached): LogMark | undefined {
    // Chunks count only once the last one is durable.
    if (large !== undefined) return large.before;
    return newest && { place: newest, bytes: this.#index.uncoveredBytesOf(handle) };
  }

  /** Queues a source. @returns false when it must first wait for space. */
  join(attached: Attached): boolean {
    if (this.#held.has(attached)) {
      if (!attached.source.makesRoom) return false;
      this.#held.delete(attached);
    }
    this.#enqueue(attached);
    return true;
  }

  /** Appends a source with something to take, unless it already waits. */
  #enqueue(attached: Attached): void {
    if (this.#small.has(attached) || this.#large.has(attached)) return;
    const { source, large } = attached;
    const isInChunks = large?.isEnding === false;
    const bytes = isInChunks ? Number.POSITIVE_INFINITY : source.nextBytes;
    if (bytes === undefined) attached.held = undefined;
    else (bytes > this.#limits.chunkBytes / SMALL_PER_CHUNK ? this.#large : this.#small).add(attached);
  }

  #leave(attached: Attached): void {
    this.#small.delete(attached);
    this.#large.delete(attached);
  }

  /** Releases a project whose own parts were covered. @returns it if it was held. */
  unhold(handle: string): Attached | undefined {
    const attached = this.#attached.get(handle);
    return attached !== undefined && this.#held.delete(attached) ? attached : undefined;
  }

  /** Queues all held sources again. @returns whether there are any. */
  unholdAll(): boolean {
    if (this.#held.size === 0) return false;
    const held = [...this.#held];
    this.#held.clear();
    for (const attached of held) this.#enqueue(attached);
    return true;
  }

  get isAnyoneHeld(): boolean {
    return this.#held.size > 0;
  }

  /** The start of the longest wait of a held source; undefined when none is held. */
  get heldSinceMs(): number | undefined {
    let oldest: number | undefined;
    for (const { held } of this.#held)
      if (held !== undefined) oldest = Math.min(oldest ?? held.sinceMs, held.sinceMs);
    return oldest;
  }

  /** Refuses sources that have been held since this moment or earlier. */
  refuseHeldSince(ms: number): void {
    for (const attached of this.#held) {
      const { held, source } = attached;
      if (held === undefined || held.sinceMs > ms) continue;
      this.#held.delete(attached);
      attached.held = undefined;
      const error = held.isOwn
        ? new AppError('rate_limited', {
            detail: 'your share of the log is in use',
            retryAfterS: RETRY_AFTER_S,
          })
        : new AppError('overloaded', { detail: 'the log has no room to spare', retryAfterS: RETRY_AFTER_S });
      source.refuse(error);
      this.#refuseLarge(attached, error);
    }
  }

  #hold(attached: Attached, isOwn = false): void {
    this.#held.add(attached);
    if (attached.held === undefined) attached.held = { sinceMs: this.#clock.monotonic(), isOwn };
    else attached.held.isOwn = isOwn;
  }

  /** Called when a segment outside the reserve begins. */
  forgetReserve(): void {
    for (const attached of this.#attached.values()) attached.reserveBytes = 0;
  }

  /**
   * Asks the ready sources for their parts of the next frame, at most one each.
   *
   * @param bytesMax of their bodies and entries.
   * @param isReserve whether the frame goes into a segment of the reserve.
   */
  take(bytesMax: number, isReserve: boolean): Sending[] {
    const { chunkBytes } = this.#limits;
    const smallBytes = chunkBytes / SMALL_PER_CHUNK;
    const group: Sending[] = [];
    let left = bytesMax;
    this.#shares.beginFrame();
    const ask = (queue: Set<Attached>, partBytes: number, reserved: number) => {
      const share = Math.max(partBytes, Math.floor((left - reserved) / queue.size));
      for (const attached of queue) {
        // A part has at most the bytes of a chunk, even if its source has announced more.
        if (left < Math.max(chunkBytes, reserved + partBytes) || group.length >= FRAME_PARTS_MAX) return;
        queue.delete(attached);
        const sending = this.#takeFrom(attached, Math.min(share, left - reserved), isReserve);
        if (sending === undefined) continue;
        group.push(sending);
        left -= sending.bytes + OVERHEAD_BYTES;
      }
    };
    const half = Math.min(2 * (chunkBytes + OVERHEAD_BYTES), Math.floor(bytesMax / 2));
    ask(this.#small, smallBytes, this.#large.size > 0 ? half : 0);
    ask(this.#large, chunkBytes, 0);
    ask(this.#small, smallBytes, 0);
    for (const { attached } of group) this.#enqueue(attached);
    return group;
  }

  #takeFrom(attached: Attached, bytesMax: number, isReserve: boolean): Sending | undefined {
    const { source, large } = attached;
    if (large !== undefined && isReserve) {
      this.#hold(attached);
      return undefined;
    }
    if (large !== undefined) {
      attached.held = undefined;
      return this.#nextChunk(attached, large);
    }
    if (isReserve && this.#shares.isOverReserve(attached)) {
      source.refuse(new AppError('disk_full'));
      if (source.makesRoom) this.#hold(attached);
      else attached.held = undefined;
      return undefined;
    }
    const over = isReserve || source.makesRoom ? undefined : this.#shares.exceeded(attached);
    if (over !== undefined) {
      this.#hold(attached, true);
      // Most bytes of a subject may belong to another project, so a checkpoint of this one might free
      // nothing.
      this.#observer?.onPressure?.(over === 'project' ? source.handle : undefined);
      return undefined;
    }
    const part = source.take(bytesMax, isReserve);
    if (part === undefined) {
      // Its commits may not be allowed to use the reserve. It is asked again once there is space.
      if (isReserve) this.#hold(attached);
      else attached.held = undefined;
      return undefined;
    }
    attached.held = undefined;
    const bytes = part.plaintext.reduce((sum, piece) => sum + piece.length, 0);
    if (bytes > Math.max(bytesMax, this.#limits.chunkBytes)) {
      assert(part.kind === 'data', 'only data comes in chunks');
      const [whole] = part.plaintext;
      // Avoids a copy, which takes long for many megabytes.
      const plaintext =
        whole !== undefined && part.plaintext.length === 1 ? whole : Buffer.concat(part.plaintext);
      attached.large = { part, plaintext, before: this.mark(attached), sent: 0, chunks: 0, isEnding: false };
      return this.#nextChunk(attached, attached.large);
    }
    const { kind, plaintext } = part;
    return { attached, part, kind, chunks: 0, plaintext, bytes, isLast: true };
  }

  #nextChunk(attached: Attached, large: Large): Sending {
    const { part, plaintext, sent, chunks } = large;
    const piece = plaintext.subarray(sent, sent + this.#limits.chunkBytes);
    const isLast = sent + piece.length === plaintext.length;
    large.isEnding = isLast;
    return {
      attached,
      part,
      kind: isLast ? 'data' : 'chunk',
      chunks: isLast ? chunks : 0,
      plaintext: [piece],
      bytes: piece.length,
      isLast,
    };
  }

  /** Counts a durable chunk before the last one. Its commit may have been refused in the meantime. */
  sent({ large }: Attached, bytes: number): void {
    if (large === undefined) return;
    large.sent += bytes;
    large.chunks++;
  }

  /**
   * Without a free segment, only commits that free space continue. The others are refused on a full disk, and
   * held otherwise.
   */
  holdOrRefuse(full: AppError | undefined): void {
    for (const attached of [...this.#small, ...this.#large]) {
      if (full !== undefined) attached.source.refuse(full);
      if (attached.source.makesRoom) continue;
      this.#leave(attached);
      if (full === undefined) this.#hold(attached);
      else {
        attached.held = undefined;
        this.#refuseLarge(attached, full);
      }
    }
  }

  /** Refuses sources that are held for a segment. @returns those that still have commits that free space. */
  refuseHeld(error: AppError): Attached[] {
    const refused = [...this.#held];
    this.#held.clear();
    for (const attached of refused) {
      attached.source.refuse(error);
      this.#refuseLarge(attached, error);
      if (!attached.source.makesRoom) attached.held = undefined;
    }
    return refused.filter(({ source }) => source.makesRoom);
  }

  refuseAll(error: AppError): void {
    const waiting = [...this.#small, ...this.#large, ...this.#held];
    for (const queue of [this.#small, this.#large, this.#held]) queue.clear();
    for (const attached of waiting) {
      attached.source.refuse(error);
      this.#refuseLarge(attached, error);
      // On a full disk, deletes wait for the next segment.
      if (attached.source.makesRoom) this.#hold(attached);
      else attached.held = undefined;
    }
  }

  /** Chunks without the last one never count, so a partly written commit may still be refused. */
  #refuseLarge(attached: Attached, error: AppError): void {
    const { large } = attached;
    if (large === undefined || large.isEnding) return;
    attached.large = undefined;
    large.part.refused(error);
  }
}
