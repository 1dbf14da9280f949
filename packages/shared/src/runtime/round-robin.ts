/** Names with up to so many items have equal turns. So have those with up to twice as many, and so on. */
export const FEW = 4;
/** Every so many turns, those go first that otherwise come second. So nothing waits for ever. */
const TURNS_OF_SECOND = 4;

/** The items of a name. */
interface Items<T> {
  readonly first: Set<T>;
  readonly second: Set<T>;
  turns: number;
}

/** Names in the order of their turns. */
type Names<T> = Map<string, Items<T>>;

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

  /** @param isSecond whether most other items of its name go before it. */
  add(name: string, item: T, isSecond = false): void {
    const items = this.#names.get(name) ?? { first: new Set<T>(), second: new Set<T>(), turns: 0 };
    const before = sizeOf(items);
    (isSecond ? items.second : items.first).add(item);
    this.#size += sizeOf(items) - before;
    if (before === 0) this.#names.set(name, items);
    this.#reclass(name, items, before);
  }

  /** @returns whether it was there. */
  remove(name: string, item: T): boolean {
    const items = this.#names.get(name);
    if (items === undefined || !(items.first.delete(item) || items.second.delete(item))) return false;
    this.#size--;
    if (sizeOf(items) === 0) this.#names.delete(name);
    this.#reclass(name, items, sizeOf(items) + 1);
    return true;
  }

  /** Takes the item whose turn it is; undefined when there is none. */
  next(): T | undefined {
    if (this.#size === 0) return undefined;
    this.#turns++;
    const fewest = this.#classes.find((names) => names !== undefined && names.size > 0) ?? this.#names;
    const [next] = this.#turns % TURNS_OF_SECOND === 0 ? this.#names : fewest;
    if (next === undefined) return undefined;
    const [name, items] = next;
    items.turns++;
    const [item] = choose(items.first, items.second, items.turns);
    if (item === undefined) return undefined;
    this.remove(name, item);
    // The turn of the next name.
    for (const names of [this.#names, this.#classes[classOf(sizeOf(items))]])
      if (names?.delete(name) === true) names.set(name, items);
    return item;
  }

  /** Its number of items has changed. */
  #reclass(name: string, items: Items<T>, sizeBefore: number): void {
    const [from, to] = [classOf(sizeBefore), classOf(sizeOf(items))];
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

/** Whose turn it is, of two that may be empty. */
function choose<C extends { readonly size: number }>(first: C, second: C, turns: number): C {
  const isOfSecond = first.size === 0 || (second.size > 0 && turns % TURNS_OF_SECOND === 0);
  return isOfSecond ? second : first;
}

function sizeOf({ first, second }: Items<unknown>): number {
  return first.size + second.size;
}
