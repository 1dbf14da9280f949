import type { IndexSpec } from '../port/index-port.ts';
import { RefusedWrite } from '../port/refused-write.ts';

/** The documents with a key of a unique index, without the group's changes. */
export type HoldersOf<I> = (index: I, key: string) => Iterable<string>;

/** The documents that a group has written, in one unique index. */
interface Written {
  /** Keys of each written document; empty for a deleted one. */
  readonly keysOf: Map<string, readonly string[]>;
  /** The written document that holds a key. */
  readonly holderOf: Map<string, string>;
}

/** One commit being planned. It takes effect at once, so its documents may exchange their keys. */
export interface CommitUniqueness<I> {
  /**
   * Adds a document, with all of its keys in the unique indexes of its collection.
   *
   * @param at the place of the write in the commit.
   */
  write(id: string, keys: Iterable<readonly [I, readonly string[]]>, at: number): void;
  /** @throws RefusedWrite `unique_violation` when two documents have the same key after all writes. */
  check(): void;
  /** Makes the checked commit visible to the later ones. Without it, the commit is undone. */
  accept(): void;
}

/** The unique indexes after each commit of a group. */
export class GroupUniqueness<I extends { readonly spec: IndexSpec }> {
  readonly #holdersOf: HoldersOf<I>;
  readonly #written = new Map<I, Written>();
  /** Undoes a commit that was not accepted, last change first. */
  #undo: (() => void)[] = [];

  constructor(holdersOf: HoldersOf<I>) {
    this.#holdersOf = holdersOf;
  }

  /** Begins the next commit. */
  commit(): CommitUniqueness<I> {
    for (const undo of this.#undo.reverse()) undo();
    this.#undo = [];
    const documents: (readonly [I, string, number])[] = [];
    return {
      write: (id, keys, at) => {
        for (const [index, own] of keys) {
          this.#release(index, id, own);
          documents.push([index, id, at]);
        }
      },
      check: () => {
        for (const [index, id, at] of documents) this.#hold(index, id, at);
      },
      accept: () => {
        this.#undo = [];
      },
    };
  }

  /** The document gives its former keys up. */
  #release(index: I, id: string, own: readonly string[]): void {
    const { keysOf, holderOf } = this.#writtenIn(index);
    for (const key of keysOf.get(id) ?? []) if (holderOf.get(key) === id) this.#set(holderOf, key, undefined);
    this.#set(keysOf, id, own);
  }

  #hold(index: I, id: string, at: number): void {
    const written = this.#writtenIn(index);
    for (const key of written.keysOf.get(id) ?? []) {
      if (this.#hasOther(index, written, key, id))
        throw new RefusedWrite('unique_violation', at, {
          detail: `another document has the same values in the unique index ${JSON.stringify(index.spec.name)}`,
        });
      this.#set(written.holderOf, key, id);
    }
  }

  #hasOther(index: I, { keysOf, holderOf }: Written, key: string, id: string): boolean {
    if ((holderOf.get(key) ?? id) !== id) return true;
    for (const other of this.#holdersOf(index, key)) if (other !== id && !keysOf.has(other)) return true;
    return false;
  }

  #writtenIn(index: I): Written {
    let written = this.#written.get(index);
    if (written === undefined) {
      written = { keysOf: new Map(), holderOf: new Map() };
      this.#written.set(index, written);
    }
    return written;
  }

  #set<V>(map: Map<string, V>, key: string, value: V | undefined): void {
    const former = map.get(key);
    this.#undo.push(() => {
      if (former === undefined) map.delete(key);
      else map.set(key, former);
    });
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }
}
