/** Names with up to so many items have equal turns. So have those with up to twice as many, and so on. */
export const FEW = 4;
/** Each turn of this number goes to the name whose last turn was longest ago. So nothing waits for ever. */
const FOURTH = 4;

/** Items by name, in the order of the names' turns. */
type Names<T> = Map<string, Set<T>>;

/**
 * Items that wait by name. Names take turns; of each, the item that was added first is the first. Names with
 * fewer items, in classes of powers of two, go before those with more. Each fourth turn goes to the name
 * whose last turn was longest ago. So names with little hardly wait for the floods of many others.
 */
export class RoundRobin<T> {
  /** All names. */
  readonly #names: Names<T> = new Map();
  /** The same names by how many items they have. */
  readonly #classes: Names<T>[] = [];
  #size = 0;
  #turns = 0;

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  add(name: string, item: T): void {
    const items = this.#names.get(name) ?? new Set<T>();
    const before = items.size;
    items.add(item);
    this.#size += items.size - before;
    if (before === 0) this.#names.set(name, items);
    this.#reclass(name, items, before);
  }

  /** @returns whether it was there. */
  remove(name: string, item: T): boolean {
    const items = this.#names.get(name);
    if (items === undefined || !items.delete(item)) return false;
    this.#size--;
    if (items.size === 0) this.#names.delete(name);
    this.#reclass(name, items, items.size + 1);
    return true;
  }

  /** Takes the item whose turn it is; undefined when there is none. */
  next(): T | undefined {
    if (this.#size === 0) return undefined;
    this.#turns++;
    const fewest = this.#classes.find((names) => names !== undefined && names.size > 0) ?? this.#names;
    const [next] = this.#turns % FOURTH === 0 ? this.#names : fewest;
    if (next === undefined) return undefined;
    const [name, items] = next;
    const [item] = items;
    if (item === undefined) return undefined;
    this.remove(name, item);
    // The turn of the next name.
    for (const names of [this.#names, this.#classes[classOf(items.size)]])
      if (names?.delete(name) === true) names.set(name, items);
    return item;
  }

  /** Its number of items has changed. */
  #reclass(name: string, items: Set<T>, sizeBefore: number): void {
    const [from, to] = [classOf(sizeBefore), classOf(items.size)];
    if (from === to) return;
    this.#classes[from]?.delete(name);
    if (to < 0) return;
    const names: Names<T> = this.#classes[to] ?? new Map();
    this.#classes[to] = names.set(name, items);
  }
}

/** 0 for few items, and one more for each time twice as many; -1 for none. */
function classOf(size: number): number {
  return size === 0 ? -1 : Math.max(0, Math.ceil(Math.log2(size / FEW)));
}
