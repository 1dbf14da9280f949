/** The snapshots of one project, as the bound on their memory sees them. */
export interface KeptOwner {
  /** Bytes of superseded documents. */
  readonly bytes: number;
  /** Whether it has a state that nobody reads and that is only kept for later pages. */
  readonly hasUnread: boolean;
  /** Ends the snapshots of one state: one that nobody reads if there is any, else the oldest. */
  dropOne(): void;
}

/** Bytes of superseded documents that are kept where a test sets no limit. */
const BYTES_MAX = 67_108_864;
/** Part of all that one state may keep while nobody reads it. */
const UNREAD_PART = 16;

/**
 * Bounds the superseded documents that snapshots of all projects of a process keep. One project may have half
 * of it. Beyond it, snapshots end, so that no write waits: first those that nobody reads, then those of the
 * project that keeps most.
 */
export class KeptMemory {
  readonly #bytesMax: number;
  readonly #owners = new Set<KeptOwner>();
  #bytes = 0;
  #dropped = 0;

  constructor(bytesMax = BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Bytes that a state may keep while it waits for later pages. Every page with a cursor leaves one, and few
   * clients ask for it.
   */
  get unreadBytesMax(): number {
    return this.#bytesMax / UNREAD_PART;
  }

  /** States that were given up because they kept too much. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Counts bytes of a project, and ends snapshots while there are too many; a negative number subtracts. */
  count(owner: KeptOwner, bytes: number): void {
    this.#bytes += bytes;
    if (owner.bytes > 0) this.#owners.add(owner);
    else this.#owners.delete(owner);
    if (bytes <= 0) return;
    while (owner.bytes > this.#bytesMax / 2) this.#drop(owner);
    while (this.#bytes > this.#bytesMax) this.#drop(this.#victim(owner));
  }

  #victim(owner: KeptOwner): KeptOwner {
    let victim = owner;
    for (const other of this.#owners) if (isBefore(other, victim)) victim = other;
    return victim;
  }

  #drop(owner: KeptOwner): void {
    this.#dropped++;
    owner.dropOne();
  }
}

function isBefore(a: KeptOwner, b: KeptOwner): boolean {
  return a.hasUnread === b.hasUnread ? a.bytes > b.bytes : a.hasUnread;
}
