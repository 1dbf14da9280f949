import { AppError } from '@bundoc/shared/contract/app-error';

/** How long a caller waits for a place. */
const WAIT_FOR_PLACE_MS = 4_500;

/**
 * SlotPool that together take a bounded number of bytes. A caller that finds no room has places evicted, or
 * waits. One place can always be had, however many bytes it takes.
 */
export class SlotPool {
  readonly #bytesMax: number;
  readonly #evict: () => boolean;
  readonly #waiting = new Set<() => void>();
  #taken = 0;
  #bytes = 0;

  /**
   * @param evict gives one of the places back by {@link release}, if any can be spared now, and says whether
   * it did.
   */
  constructor(bytesMax: number, evict: () => boolean) {
    this.#bytesMax = bytesMax;
    this.#evict = evict;
  }

  /** Bytes of all places that are taken. */
  get bytes(): number {
    return this.#bytes;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  hasRoomFor(bytes: number): boolean {
    return this.#taken === 0 || this.#bytes + bytes <= this.#bytesMax;
  }

  /** @throws AppError `overloaded` when there was no room in time. */
  async acquire(bytes: number): Promise<void> {
    let signal: AbortSignal | undefined;
    while (!this.hasRoomFor(bytes)) {
      if (this.#evict()) continue;
      signal ??= AbortSignal.timeout(WAIT_FOR_PLACE_MS);
      if (signal.aborted) throw new AppError('overloaded');
      await this.#notified(signal);
    }
    this.#taken++;
    this.#bytes += bytes;
  }

  /** Resolves when there may be room, or time is over. */
  #notified(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake);
    });
  }

  /** A place takes so many more bytes, or fewer: others are evicted for it, as far as any can be spared. */
  grow(bytes: number): void {
    this.#bytes += bytes;
    if (bytes <= 0) {
      this.notify();
      return;
    }
    while (this.#taken > 1 && this.#bytes > this.#bytesMax && this.#evict());
  }

  release(bytes: number): void {
    this.#taken--;
    this.#bytes -= bytes;
    this.notify();
  }

  /** A place was given back, or could be evicted: who waits looks again. */
  notify(): void {
    for (const wake of this.#waiting) wake();
  }
}
