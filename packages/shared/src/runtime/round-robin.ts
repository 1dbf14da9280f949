/** Items that wait by name. Names take turns; of each, the item that was added first is the first. */
export class RoundRobin<T> {
  /** In the order of the turns. */
  readonly #items = new Map<string, Set<T>>();
  #size = 0;

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  add(name: string, item: T): void {
    const items = this.#items.get(name) ?? new Set<T>();
    this.#items.set(name, items.add(item));
    this.#size++;
  }

  /** @returns whether it was there. */
  remove(name: string, item: T): boolean {
    const items = this.#items.get(name);
    if (items?.delete(item) !== true) return false;
    this.#size--;
    if (items.size === 0) this.#items.delete(name);
    return true;
  }

  /** Takes the item whose turn it is; undefined when there is none. */
  next(): T | undefined {
    for (const [name, items] of this.#items)
      for (const item of items) {
        this.remove(name, item);
        // The turn of the next name.
        if (this.#items.delete(name)) this.#items.set(name, items);
        return item;
      }
    return undefined;
  }
}
