import { createRequire } from 'node:module';
import type { KeptState } from './kept-state.ts';

/** A CommonJS module whose default export bundlers and Node interpret differently. */
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree');

/** Kept states in the order of a key, which several states of one document may have. */
export class KeptTree<K extends string | number> {
  readonly #tree = new BTree<K, KeptState[]>(undefined, (a, b) => (a < b ? -1 : Number(a > b)));

  add(key: K, state: KeptState): void {
    const states = this.#tree.get(key);
    if (states === undefined) this.#tree.set(key, [state]);
    else states.push(state);
  }

  remove(key: K, state: KeptState): void {
    const states = this.#tree.get(key);
    if (states === undefined) return;
    const others = states.filter((one) => one !== state);
    if (others.length === 0) this.#tree.delete(key);
    else this.#tree.set(key, others);
  }

  get isEmpty(): boolean {
    return this.#tree.isEmpty;
  }

  /** Keys with their states, from `low` on. The tree must not change during the iteration. */
  from(low: K): IterableIterator<[K, KeptState[]]> {
    return this.#tree.entries(low);
  }

  /** The same before `high`, backwards; it may begin with `high` itself. */
  before(high: K): IterableIterator<[K, KeptState[]]> {
    return this.#tree.entriesReversed(high);
  }
}

/** The state as of a commit; there is at most one. */
export function stateAt(states: readonly KeptState[] | undefined, position: number): KeptState | undefined {
  return states?.find((state) => state.isAt(position));
}
