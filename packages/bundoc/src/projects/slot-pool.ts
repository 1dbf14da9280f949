import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import type { Hold } from '@bundoc/shared/shares/hold';
import { Share } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** How long a caller waits for a slot. */
const WAIT_FOR_SLOT_MS = 4_500;
/**
 * What small slots take beyond all bytes while none can be evicted, and what a small slot takes at most, as
 * parts of all bytes.
 */
const RESERVE_SHARE = 1 / 8;
const SMALL_SHARE = 1 / 64;

export interface SlotPoolOptions {
  /** Of all slots together. */
  readonly bytesMax: number;
  /** What a slot takes at least. There is no reserve where no slot is small. */
  readonly slotBytesMin?: number;
  /** Gives one of the slots back, if any can be spared now, and says whether it did. */
  readonly evict: () => boolean;
  readonly clock?: Clock;
}

/**
 * Slots that together take a bounded number of bytes. A caller that finds no room has slots evicted, or
 * waits: subjects in turn, then their projects. One slot can always be had, however many bytes it takes.
 * Small slots have a reserve beyond that, so that they do not wait behind a large one.
 */
export class SlotPool {
  readonly #share: Share;
  readonly #bytesMax: number;
  readonly #evict: () => boolean;
  #taken = 0;

  constructor({ bytesMax, slotBytesMin = 0, evict, clock = systemClock }: SlotPoolOptions) {
    const smallMax = bytesMax * SMALL_SHARE;
    const reserve = smallMax < slotBytesMin ? 0 : bytesMax * RESERVE_SHARE;
    this.#bytesMax = bytesMax;
    this.#share = new Share({
      ...{ name: 'room for open projects', capacity: bytesMax + reserve, reserve, smallMax },
      waitMs: WAIT_FOR_SLOT_MS,
      clock,
    });
    this.#evict = evict;
  }

  /** Bytes of all slots that are taken. */
  get bytes(): number {
    return this.#share.held;
  }

  get waiting(): number {
    return this.#share.waiting;
  }

  /** Whether a slot could be had without eviction, without the reserve, and while nobody waits for one. */
  hasSpare(bytes: number): boolean {
    if (this.waiting > 0) return false;
    return this.#taken === 0 || this.bytes + bytes <= this.#bytesMax;
  }

  /** @throws AppError `rate_limited`, `overloaded` when there was no room in time. */
  async acquire(key: ShareKey, bytes: number): Promise<Hold> {
    let slot = this.#share.tryTake(key, bytes);
    // Who waits already has had everything evicted that can be spared.
    while (slot === undefined && this.waiting === 0 && this.#evict()) slot = this.#share.tryTake(key, bytes);
    slot ??= await this.#share.take(key, bytes);
    this.#taken++;
    this.#shrink();
    return slot;
  }

  /** Changes the bytes of a slot. If it grows, slots that are not in use are evicted. */
  resize(slot: Hold, bytes: number): void {
    const isLarger = bytes > slot.units;
    slot.resize(bytes);
    if (isLarger) this.#shrink();
  }

  release(slot: Hold): void {
    this.#taken--;
    slot[Symbol.dispose]();
  }

  /** Refuses who has waited too long. A timer does it while any wait. */
  sweep(): void {
    this.#share.sweep();
  }

  /** A slot can be evicted that could not before. */
  notify(): void {
    while (this.waiting > 0 && this.#evict());
  }

  /** Evicts what can be spared beyond all bytes. */
  #shrink(): void {
    while (this.#taken > 1 && this.bytes > this.#bytesMax && this.#evict());
  }
}
