import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { type Hold, Share } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** How long a caller waits for a place. */
const WAIT_FOR_PLACE_MS = 4_500;

/**
 * Places that together take a bounded number of bytes. A caller that finds no room has places vacated, or
 * waits: subjects in turn, then their projects. One place can always be had, however many bytes it takes.
 */
export class Places {
  readonly #share: Share;
  readonly #vacate: () => boolean;
  #taken = 0;

  /**
   * @param vacate gives one of the places back by {@link leave}, if any can be spared now, and says whether
   * it did.
   */
  constructor(bytesMax: number, vacate: () => boolean, clock: Clock = systemClock) {
    this.#share = new Share({
      name: 'room for open projects',
      capacity: bytesMax,
      waitMs: WAIT_FOR_PLACE_MS,
      clock,
    });
    this.#vacate = vacate;
  }

  /** Bytes of all places that are taken. */
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
  async take(key: ShareKey, bytes: number): Promise<Hold> {
    // Who waits already has had everything vacated that can be spared.
    while (this.waiting === 0 && !this.hasRoomFor(bytes) && this.#vacate());
    const place = await this.#share.take(key, bytes);
    this.#taken++;
    return place;
  }

  /** A place takes another number of bytes: others are vacated for it, as far as any can be spared. */
  resize(place: Hold, bytes: number): void {
    const isLarger = bytes > place.units;
    place.resize(bytes);
    while (isLarger && this.#taken > 1 && this.bytes > this.#share.capacity && this.#vacate());
  }

  leave(place: Hold): void {
    this.#taken--;
    place[Symbol.dispose]();
  }

  /** Refuses who has waited too long. A timer does it while any wait. */
  sweep(): void {
    this.#share.sweep();
  }

  /** A place can be vacated that could not before. */
  announce(): void {
    while (this.waiting > 0 && this.#vacate());
  }
}
