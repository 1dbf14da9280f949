/** Up to so many items, a name goes before those with more. */
export const FEW = 64;
/** Every so many turns, those go first that otherwise come second. So nothing waits for ever. */
const TURNS_OF_SECOND = 4;

/** The items of a name. */
interface Items<T> {
  readonly first: Set<T>;
  readonly second: Set<T>;
  turns: number;
}

/**
 * Items that wait by name. Names take turns; of each, the item that was added first is the first. Names with
 * few items go before those with many, so that many names with floods of items hardly delay the others.
 */
export class RoundRobin<T> {
  /** Names with few items and with many, in the order of their turns. */
  readonly #few = new Map<string, Items<T>>();
  readonly #many = new Map<string, Items<T>>();
  #size = 0;
  #turns = 0;

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  /** @param isSecond whether most other items of its name go before it. */
  add(name: string, item: T, isSecond = false): void {
    const known = this.#few.get(name) ?? this.#many.get(name);
    const items = known ?? { first: new Set<T>(), second: new Set<T>(), turns: 0 };
    (isSecond ? items.second : items.first).add(item);
    this.#size++;
    if (sizeOf(items) <= FEW) this.#few.set(name, items);
    else if (this.#few.delete(name)) this.#many.set(name, items);
  }

  /** @returns whether it was there. */
  remove(name: string, item: T): boolean {
    const items = this.#few.get(name) ?? this.#many.get(name);
    if (items === undefined || !(items.first.delete(item) || items.second.delete(item))) return false;
    this.#size--;
    const size = sizeOf(items);
    if (size === 0) this.#few.delete(name);
    else if (size === FEW && this.#many.delete(name)) this.#few.set(name, items);
    return true;
  }

  /** Takes the item whose turn it is; undefined when there is none. */
  next(): T | undefined {
    this.#turns++;
    const names = choose(this.#few, this.#many, this.#turns);
    for (const [name, items] of names) {
      items.turns++;
      for (const item of choose(items.first, items.second, items.turns)) {
        this.remove(name, item);
        // The turn of the next name.
        if (names.delete(name)) names.set(name, items);
        return item;
      }
    }
    return undefined;
  }
}

/** Whose turn it is, of two that may be empty. */
function choose<C extends { readonly size: number }>(first: C, second: C, turns: number): C {
  const isOfSecond = first.size === 0 || (second.size > 0 && turns % TURNS_OF_SECOND === 0);
  return isOfSecond ? second : first;
}

function sizeOf({ first, second }: Items<unknown>): number {
  return first.size + second.size;
}
