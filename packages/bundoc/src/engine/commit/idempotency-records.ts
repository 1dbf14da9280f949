import { IDEMPOTENCY_ANSWERS_MAX, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_TTL_MS } from '../port/port.ts';
import type { IdempotencyRecord } from '../port/state.ts';

/** Bytes of memory for a key without its answer. */
const KEY_BYTES = 300;

/** The idempotency keys of the last day, oldest first. */
export class IdempotencyRecords implements Iterable<IdempotencyRecord> {
  readonly #used = new Map<string, IdempotencyRecord>();
  #answersLength = 0;

  /** The record of a key from the last day, or slightly older. */
  get(key: string): IdempotencyRecord | undefined {
    return this.#used.get(key);
  }

  add(used: IdempotencyRecord): void {
    this.#forget(used.key);
    this.#used.set(used.key, used);
    this.#answersLength += used.answer.length;
    for (const [key, oldest] of this.#used) {
      const isRoomy =
        this.#used.size <= IDEMPOTENCY_KEYS_MAX && this.#answersLength <= IDEMPOTENCY_ANSWERS_MAX;
      if (isRoomy && oldest.atMs + IDEMPOTENCY_TTL_MS > used.atMs) break;
      this.#forget(key);
    }
  }

  /** Estimated memory, bytes. */
  get memoryBytes(): number {
    return this.#used.size * KEY_BYTES + this.#answersLength;
  }

  #forget(key: string): void {
    this.#answersLength -= this.#used.get(key)?.answer.length ?? 0;
    this.#used.delete(key);
  }

  [Symbol.iterator](): Iterator<IdempotencyRecord> {
    return this.#used.values();
  }
}
