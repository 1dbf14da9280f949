interface Queued<T> {
  readonly item: T;
  /** Bytes that it may take; below zero it took more than its share. */
  credit: number;
}

/**
 * Takes turns among those who wait, by bytes: first by group, and within a group by item. Each round gives
 * equal shares; a taker of more waits until later rounds have paid for it (deficit round robin, M. Shreedhar
 * and G. Varghese, 1995; with debt in place of a look at what comes next).
 */
export class FairQueue<T> {
  readonly #shareMin: number;
  readonly #groupOf: (item: T) => string;
  /** Who waits, by group; the group whose turn is next comes first. */
  readonly #groups = new Map<string, Queued<T>[]>();
  /** The group in which an item waits. */
  readonly #in = new Map<T, string>();

  /** @param shareMin bytes that a round gives an item at least. */
  constructor(shareMin: number, groupOf: (item: T) => string) {
    this.#shareMin = shareMin;
    this.#groupOf = groupOf;
  }

  get size(): number {
    return this.#in.size;
  }

  /** Joins at the end of its group, unless it waits already. */
  add(item: T): void {
    if (this.#in.has(item)) return;
    const group = this.#groupOf(item);
    this.#in.set(item, group);
    const queue = this.#groups.get(group);
    if (queue === undefined) this.#groups.set(group, [{ item, credit: 0 }]);
    else queue.push({ item, credit: 0 });
  }

  remove(item: T): void {
    this.keep((other) => other !== item);
  }

  /** Drops those for whom `isKept` says no. */
  keep(isKept: (item: T) => boolean): void {
    for (const [group, queue] of this.#groups) {
      const kept = queue.filter(({ item }) => {
        const stays = isKept(item);
        if (!stays) this.#in.delete(item);
        return stays;
      });
      if (kept.length === 0) this.#groups.delete(group);
      else if (kept.length < queue.length) this.#groups.set(group, kept);
    }
  }

  items(): T[] {
    return [...this.#groups.values()].flatMap((queue) => queue.map(({ item }) => item));
  }

  /**
   * One round: each who waits is asked once, one of each group in turn, until `bytes` are taken. Who comes
   * after that is the first of the next round: of the groups, and of the items of a group.
   *
   * @param take gives what it took in bytes, at most `max` unless it cannot be less; undefined leaves the
   * queue.
   */
  round(
    bytes: number,
    isFull: (left: number) => boolean,
    take: (item: T, max: number) => number | undefined,
  ): void {
    const ofGroup = Math.floor(bytes / Math.max(1, this.#groups.size));
    let left = bytes;
    let turns = Array.from(this.#groups, ([group, queue]) => ({
      ...{ group, queue, at: 0, asked: [] as Queued<T>[] },
      share: Math.max(this.#shareMin, Math.floor(ofGroup / queue.length)),
    }));
    const all = turns;
    while (turns.length > 0 && !isFull(left)) {
      for (const turn of turns) {
        if (isFull(left)) break;
        const queued = turn.queue[turn.at++] as Queued<T>;
        queued.credit = Math.min(turn.share, queued.credit + turn.share);
        const taken = queued.credit > 0 ? take(queued.item, Math.min(queued.credit, left)) : 0;
        if (taken === undefined) {
          this.#in.delete(queued.item);
          continue;
        }
        queued.credit -= taken;
        left -= taken;
        turn.asked.push(queued);
      }
      turns = turns.filter(({ queue, at }) => at < queue.length);
    }
    for (const { group, queue, at, asked } of all) {
      if (at === 0) continue;
      this.#groups.delete(group);
      const rest = [...queue.slice(at), ...asked];
      if (rest.length > 0) this.#groups.set(group, rest);
    }
  }
}
