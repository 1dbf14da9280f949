interface Queued<T> {
  readonly item: T;
  /** Bytes that it may take; negative after it took more than its share. */
  credit: number;
}

/**
 * A fair queue of waiting items, by bytes: first by group, then by item within a group. Each round gives
 * equal shares; an item that took more waits until later rounds have repaid its debt. It is deficit round
 * robin (M. Shreedhar and G. Varghese, 1995), with debt in place of a lookahead.
 */
export class FairQueue<T> {
  readonly #shareMin: number;
  readonly #groupOf: (item: T) => string;
  /** Waiting items by group; the group whose turn is next comes first. */
  readonly #groups = new Map<string, Queued<T>[]>();
  /** The group of each waiting item. */
  readonly #in = new Map<T, string>();

  /** @param shareMin minimum bytes for an item in each round. */
  constructor(shareMin: number, groupOf: (item: T) => string) {
    this.#shareMin = shareMin;
    this.#groupOf = groupOf;
  }

  get size(): number {
    return this.#in.size;
  }

  /** Appends an item to its group, unless it already waits. */
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

  /** Drops the items for which `isKept` is false. */
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
   * Runs one round: it asks each item once, one of each group in turn, until `bytes` are taken. The next
   * round starts where this one stopped, for groups and for the items of each group.
   *
   * @param take returns the bytes it took, at most `max` unless the smallest unit is larger; undefined
   *   removes the item.
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
