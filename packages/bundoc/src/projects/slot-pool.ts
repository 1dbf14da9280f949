import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { type Hold, Share } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** How long a caller waits for a slot. */
const WAIT_FOR_SLOT_MS = 4_500;

/**
 * Slots that together take a bounded number of bytes. A caller that finds no room has slots evicted, or
 * waits: subjects in turn, then their projects. One slot can always be had, however many bytes it takes.
 */
export class SlotPool {
  readonly #share: Share;
  readonly #evict: () => boolean;
  #taken = 0;

  /**
   * @param evict gives one of the slots back by {@link release}, if any can be spared now, and says whether
   * it did.
   */
  constructor(bytesMax: number, evict: () => boolean, clock: Clock = systemClock) {
    this.#share = new Share({
      name: 'room for open projects',
      capacity: bytesMax,
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

  hasRoomFor(bytes: number): boolean {
    return this.#taken === 0 || this.bytes + bytes <= this.#share.capacity;
  }

  /** @throws AppError `rate_limited`, `overloaded` when there was no room in time. */
  async acquire(key: ShareKey, bytes: number): Promise<Hold> {
    // Who waits already has had everything evicted that can be spared.
    while (this.waiting === 0 && !this.hasRoomFor(bytes) && this.#evict());
    const slot = await this.#share.take(key, bytes);
    this.#taken++;
    return slot;
  }

  /** Changes the bytes of a slot. If it grows, slots that are not in use are evicted. */
  resize(slot: Hold, bytes: number): void {
    const isLarger = bytes > slot.units;
    slot.resize(bytes);
    while (isLarger && this.#taken > 1 && this.bytes > this.#share.capacity && this.#evict());
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
}
