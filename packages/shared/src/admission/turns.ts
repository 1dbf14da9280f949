import type { Account, Accounts } from './account.ts';

/** How many items of a project a deep {@link Turns.peek} looks at. */
const DEPTH = 32;

/**
 * Items that wait for a turn. The next one belongs to the subject that has used least, there to the project
 * that has used least, and there it came first.
 *
 * The account of an item is charged for its cost afterwards.
 */
export class Turns<T> {
  readonly #all: Account;
  readonly #isOwed: boolean;
  /** The waiting items of each project, in order of arrival. */
  readonly #queues = new Map<Account, Set<T>>();
  #size = 0;

  /** @param isOwed whether accounts go into debt for what they use while an item of others waits here. */
  constructor(accounts: Accounts, isOwed = true) {
    this.#all = accounts.all;
    this.#isOwed = isOwed;
  }

  /** Number of items. */
  get size(): number {
    return this.#size;
  }

  /** The accounts with items. */
  get accounts(): Iterable<Account> {
    return this.#queues.keys();
  }

  *[Symbol.iterator](): Generator<T> {
    for (const items of this.#queues.values()) yield* items;
  }

  add(account: Account, item: T): void {
    const { subject } = account;
    for (const one of [subject, account]) one.usedUs = one.usedIfWoken;
    const queue = this.#queues.get(account);
    if (queue === undefined) this.#queues.set(account, new Set([item]));
    else queue.add(item);
    this.#count(account, 1);
  }

  /** @returns whether the item was waiting. */
  remove(account: Account, item: T): boolean {
    const queue = this.#queues.get(account);
    if (queue?.delete(item) !== true) return false;
    if (queue.size === 0) this.#queues.delete(account);
    this.#count(account, -1);
    return true;
  }

  /**
   * Finds the next item without removing it.
   *
   * @param may decides which items may be next; all by default.
   * @param isDeep whether an item may pass earlier ones of its project that `may` rejects.
   */
  peek(may: (item: T) => boolean = () => true, isDeep = false): T | undefined {
    let best: Account | undefined;
    let next: T | undefined;
    for (const [account, items] of this.#queues) {
      if (best !== undefined && !isBefore(account, best)) continue;
      let left = isDeep ? DEPTH : 1;
      for (const item of items) {
        if (may(item)) [best, next] = [account, item];
        else if (--left > 0) continue;
        break;
      }
    }
    return next;
  }

  /** Removes an item because its turn has come. */
  take(account: Account, item: T): void {
    if (!this.remove(account, item)) return;
    const rest = this.#queues.get(account);
    if (rest !== undefined) {
      // The project goes behind others that have used as much.
      this.#queues.delete(account);
      this.#queues.set(account, rest);
    }
    const { subject } = account;
    subject.floorUs = Math.max(subject.floorUs, account.usedUs);
    this.#all.floorUs = Math.max(this.#all.floorUs, subject.usedUs);
  }

  /** Whether an item of an account would be next if it came now. */
  wouldBeNext(account: Account): boolean {
    if (this.#queues.has(account)) return false;
    const { subject } = account;
    for (const other of this.#queues.keys())
      if (
        subject === other.subject
          ? account.usedIfWoken >= other.usedUs
          : subject.usedIfWoken >= other.subject.usedUs
      )
        return false;
    return true;
  }

  #count(account: Account, more: number): void {
    this.#size += more;
    account.waiting += more;
    account.subject.waiting += more;
    if (this.#isOwed) this.#all.waiting += more;
  }
}

function isBefore(one: Account, other: Account): boolean {
  if (one.subject !== other.subject) return one.subject.usedUs < other.subject.usedUs;
  return one.usedUs < other.usedUs;
}
