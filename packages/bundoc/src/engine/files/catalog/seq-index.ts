/** Most collections are small, and each has an index. */
const ROOM_AT_FIRST = 4;

/**
 * Slots in the order of sequence numbers, appended at the end. A dead entry stays in place and is skipped;
 * the index is packed when most entries are dead. 12 bytes an entry.
 */
export class SeqIndex {
  readonly #holds: (seq: number, slot: number) => boolean;
  #seqs = new Float64Array(ROOM_AT_FIRST);
  #slots = new Uint32Array(ROOM_AT_FIRST);
  #length = 0;
  #dead = 0;
  /** All entries before it are dead. */
  #first = 0;

  /** @param holds whether an entry is still valid for its slot. */
  constructor(holds: (seq: number, slot: number) => boolean) {
    this.#holds = holds;
  }

  /** Adds an entry at the end. */
  push(seq: number, slot: number): void {
    if (this.#length === this.#seqs.length) this.#grow();
    this.#seqs[this.#length] = seq;
    this.#slots[this.#length] = slot;
    this.#length++;
  }

  /** Counts one entry as dead. */
  entryDied(): void {
    this.#dead++;
    if (this.#dead > 1_024 && this.#dead * 2 > this.#length) this.#pack();
  }

  /** The first slot; undefined for an empty index. */
  first(): number | undefined {
    for (; this.#first < this.#length; this.#first++) {
      const slot = this.#slots[this.#first] as number;
      if (this.#holds(this.#seqs[this.#first] as number, slot)) return slot;
    }
    return undefined;
  }

  /** Slots after `seq`, in order. The index must not change during the iteration. */
  *after(seq: number): Generator<number> {
    for (let at = this.#firstAfter(seq); at < this.#length; at++) {
      const slot = this.#slots[at] as number;
      if (this.#holds(this.#seqs[at] as number, slot)) yield slot;
    }
  }

  #firstAfter(seq: number): number {
    let low = 0;
    let high = this.#length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#seqs[middle] as number) <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #pack(): void {
    let kept = 0;
    for (let at = 0; at < this.#length; at++) {
      const seq = this.#seqs[at] as number;
      const slot = this.#slots[at] as number;
      if (!this.#holds(seq, slot)) continue;
      this.#seqs[kept] = seq;
      this.#slots[kept] = slot;
      kept++;
    }
    this.#length = kept;
    this.#dead = 0;
    this.#first = 0;
  }

  #grow(): void {
    const capacity = this.#seqs.length * 2;
    const seqs = new Float64Array(capacity);
    seqs.set(this.#seqs);
    this.#seqs = seqs;
    const slots = new Uint32Array(capacity);
    slots.set(this.#slots);
    this.#slots = slots;
  }
}
