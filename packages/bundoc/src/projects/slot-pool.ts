import { Accounts } from '@bundoc/shared/admission/account';
import type { Hold } from '@bundoc/shared/admission/pool';
import { Pool } from '@bundoc/shared/admission/pool';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** Maximum wait for a slot. */
const WAIT_FOR_SLOT_MS = 4_500;
/**
 * Further bytes for small slots when nothing can be evicted, and the maximum of a small slot, as fractions of
 * the total.
 */
const EXTRA_PART = 1 / 8;
const SMALL_PART = 1 / 64;

export interface SlotPoolOptions {
  /** Maximum bytes of all slots together. */
  readonly bytesMax: number;
  /** Minimum bytes of a slot. If no slot can be small, there are no further bytes. */
  readonly slotBytesMin?: number;
  /** Evicts one slot if possible, and returns whether it did. */
  readonly evict: () => boolean;
  readonly clock?: Clock;
  /** They decide whose turn is next. */
  readonly accounts?: Accounts;
}

/**
 * Slots with a bounded total size. A caller without space has slots evicted, or waits; the subject that has
 * used least is next. One slot is always available, whatever its size. Small slots have further bytes, so
 * that they do not wait behind a large one.
 */
export class SlotPool {
  readonly #share: Pool;
  readonly #bytesMax: number;
  readonly #evict: () => boolean;
  #taken = 0;

  constructor({
    bytesMax,
    slotBytesMin = 0,
    evict,
    clock = systemClock,
    accounts = new Accounts(),
  }: SlotPoolOptions) {
    const smallMax = bytesMax * SMALL_PART;
    const extra = smallMax < slotBytesMin ? 0 : bytesMax * EXTRA_PART;
    this.#bytesMax = bytesMax;
    this.#share = new Pool({
      name: 'room for open projects',
      capacity: bytesMax,
      extra,
      smallMax,
      waitMs: WAIT_FOR_SLOT_MS,
      clock,
      accounts,
    });
    this.#evict = evict;
  }

  /** Bytes of all taken slots. */
  get bytes(): number {
    return this.#share.held;
  }

  get waiting(): number {
    return this.#share.waiting;
  }

  /** Whether a slot is available without eviction, without the further bytes, and without other waiters. */
  hasSpare(bytes: number): boolean {
    if (this.waiting > 0) return false;
    return this.#taken === 0 || this.bytes + bytes <= this.#bytesMax;
  }

  /** @throws AppError `rate_limited`, `overloaded` when there was no space in time. */
  async acquire(key: ShareKey, bytes: number): Promise<Hold> {
    let slot = this.#share.tryTake(key, bytes);
    // With other waiters, everything possible was already evicted.
    while (slot === undefined && this.waiting === 0 && this.#evict()) slot = this.#share.tryTake(key, bytes);
    slot ??= await this.#share.take(key, bytes);
    this.#taken++;
    this.#shrink();
    return slot;
  }

  /** Changes the size of a slot. If it grows, unused slots are evicted. */
  resize(slot: Hold, bytes: number): void {
    const isLarger = bytes > slot.units;
    slot.resize(bytes);
    if (isLarger) this.#shrink();
  }

  release(slot: Hold): void {
    this.#taken--;
    slot[Symbol.dispose]();
  }

  /** Refuses callers that have waited too long. A timer does it as well while there are any. */
  sweep(): void {
    this.#share.sweep();
  }

  /** Called when another slot can be evicted. */
  notify(): void {
    while (this.waiting > 0 && this.#evict());
  }

  /** Evicts slots while the total is too large. */
  #shrink(): void {
    while (this.#taken > 1 && this.bytes > this.#bytesMax && this.#evict());
  }
}
