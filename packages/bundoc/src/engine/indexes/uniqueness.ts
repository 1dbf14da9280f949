import { AppError } from '@bundoc/shared/contract/app-error';
import type { IndexSpec } from '../index-port.ts';

/** Documents that have a key of a unique index, not counting what the group changes. */
export type HoldersOf<I> = (index: I, key: string) => Iterable<string>;

/** What a group's documents are, in one unique index. */
interface Written {
  /** Keys of each document that the group has written, none for a deleted one: it has no others any more. */
  readonly keysOf: Map<string, readonly string[]>;
  /** Which of those documents has a key. */
  readonly holderOf: Map<string, string>;
}

/** One commit on its way. */
export interface CommitUniqueness<I> {
  /**
   * A document, in the order of writes, with all of its keys in the unique indexes of its collection.
   *
   * @throws AppError `unique_violation` when another document has one of the keys.
   */
  write(id: string, keys: Iterable<readonly [I, readonly string[]]>): void;
  /** It takes effect for the commits behind it. Without that it never was. */
  accept(): void;
}

/** Unique indexes as the commits of one group leave them, one commit after another. */
export class GroupUniqueness<I extends { readonly spec: IndexSpec }> {
  readonly #holdersOf: HoldersOf<I>;
  readonly #written = new Map<I, Written>();
  /** What takes a commit back that was not accepted, the last change last. */
  #undo: (() => void)[] = [];

  constructor(holdersOf: HoldersOf<I>) {
    this.#holdersOf = holdersOf;
  }

  /** Begins with the next commit. */
  commit(): CommitUniqueness<I> {
    for (const undo of this.#undo.reverse()) undo();
    this.#undo = [];
    return {
      write: (id, keys) => {
        for (const [index, own] of keys) this.#write(index, id, own);
      },
      accept: () => {
        this.#undo = [];
      },
    };
  }

  #write(index: I, id: string, own: readonly string[]): void {
    const written = this.#writtenIn(index);
    for (const key of written.keysOf.get(id) ?? [])
      if (written.holderOf.get(key) === id) this.#set(written.holderOf, key, undefined);
    this.#set(written.keysOf, id, own);
    for (const key of own) {
      if (this.#hasOther(index, written, key, id))
        throw new AppError('unique_violation', {
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
