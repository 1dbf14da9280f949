interface Ready {
  readonly subject: string;
}

/** Queues that wait for a transaction or a statement. Subjects take turns, as do the queues of a subject. */
export class ReadyQueues<Q extends Ready> {
  /** By subject; the next subject and its next queue come first. */
  #subjects = new Map<string, Set<Q>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  *[Symbol.iterator](): Generator<Q> {
    for (const queues of this.#subjects.values()) yield* queues;
  }

  /** Adds a queue at the end, unless it is already in. */
  add(queue: Q): void {
    const queues = this.#subjects.get(queue.subject);
    if (queues === undefined) this.#subjects.set(queue.subject, new Set([queue]));
    else queues.add(queue);
    this.#size++;
  }

  /** Adds queues before all others. */
  addFirst(first: readonly Q[]): void {
    const others = this.#subjects;
    this.#subjects = new Map();
    for (const queue of first) this.add(queue);
    for (const [subject, queues] of others)
      this.#subjects.set(subject, new Set([...(this.#subjects.get(subject) ?? []), ...queues]));
  }

  /** Removes queues that had their turn, and moves their subjects to the end. */
  remove(taken: Iterable<Q>): void {
    for (const queue of taken) {
      const queues = this.#subjects.get(queue.subject);
      if (queues?.delete(queue) !== true) continue;
      this.#size--;
      this.#subjects.delete(queue.subject);
      if (queues.size > 0) this.#subjects.set(queue.subject, queues);
    }
  }

  /**
   * Offers one queue of each subject in turn, round after round, and removes those that something was taken
   * from.
   *
   * @param max queues of a subject that are offered.
   * @param takes whether something was taken from a queue, so that it is offered again.
   * @returns the removed ones.
   */
  inTurn(max: number, takes: (queue: Q) => boolean): Set<Q> {
    const taken = new Set<Q>();
    const rings = Array.from(this.#subjects.values(), (queues) => [...queues.values().take(max)]);
    for (let left = rings; left.length > 0; )
      left = left.filter((ring) => {
        const queue = ring.shift();
        if (queue !== undefined && takes(queue)) {
          taken.add(queue);
          ring.push(queue);
        }
        return ring.length > 0;
      });
    this.remove(taken);
    return taken;
  }
}
