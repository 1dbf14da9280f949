import type { ShareKey } from '../shares/share-key.ts';

/** What every request costs beside what is measured, microseconds. */
export const REQUEST_US = 40;
/** What a byte costs that comes in or goes out, or is decrypted, microseconds: 0.3 ms a MiB in 2024. */
export const BYTE_US = 300 / 1_048_576;
/** Debt beyond this is forgiven: nobody waits for longer than the others take to use as much. */
const DEBT_MAX_US = 1_000_000;
/** So much less than the others an account has used that was idle. So short work goes before long work. */
const IDLE_CREDIT_US = 2_000;
/** From so many on, accounts that are not needed any more are looked for. */
const FORGET_FROM = 1_024;

/** What an account has of one pool. */
export interface Use {
  held: number;
  /** Its requests that wait. */
  waiting: number;
  /** Its children with either. */
  active: number;
}

/** What a subject, or one of its projects, has used of the process, and what it has of it now. */
export class Account {
  readonly id: string;
  /** The account of the subject; for a subject, that of all. */
  readonly parent: Account | undefined;
  readonly children = new Map<string, Account>();
  /** What it has used, microseconds. It only means something beside the others of its parent. */
  usedUs = Number.NEGATIVE_INFINITY;
  /** All that it was charged, microseconds. */
  chargedUs = 0;
  /** The most that a child had used when its turn came. */
  floorUs = 0;
  /** Its items that wait for a turn. */
  waiting = 0;
  /** What refers to it, so that it is not forgotten. */
  users = 0;
  /** By the number of the pool. */
  readonly #uses: Use[] = [];

  constructor(id: string, parent: Account | undefined) {
    this.id = id;
    this.parent = parent;
  }

  /** The account of its subject. */
  get subject(): Account {
    return this.parent as Account;
  }

  /** What it counts as having used, if an item of it came now: what it left while it was idle is lost. */
  get usedIfWoken(): number {
    const { floorUs } = this.parent as Account;
    return this.waiting > 0 ? this.usedUs : Math.max(this.usedUs, floorUs - IDLE_CREDIT_US);
  }

  of(pool: number): Use {
    const use = this.#uses[pool];
    if (use !== undefined) return use;
    const unused = { held: 0, waiting: 0, active: 0 };
    this.#uses[pool] = unused;
    return unused;
  }
}

/**
 * The accounts of a process, by subject and project. The one that has used least is next: start-time fair
 * queuing (P. Goyal, H. Vin and H. Cheng, 1996), with costs that are charged afterwards. Those that use
 * little come first by that alone.
 */
export class Accounts {
  readonly all = new Account('', undefined);
  #pools = 0;
  #count = 0;
  #forgetFrom = FORGET_FROM;

  /** A number for a pool. */
  newPool(): number {
    return this.#pools++;
  }

  /** The account of a project, also of a request without one. */
  of({ subject, project }: ShareKey): Account {
    // Before the look-ups: it must not forget what they find.
    if (this.#count >= this.#forgetFrom) this.#forget();
    const parent = this.all.children.get(subject) ?? this.#open(subject, this.all);
    return parent.children.get(project) ?? this.#open(project, parent);
  }

  /** Charges a project and its subject. */
  charge(project: Account, us: number): void {
    for (let one = project; one.parent !== undefined; one = one.parent) {
      const { parent } = one;
      one.chargedUs += us;
      one.usedUs = Math.min(one.usedIfWoken + us, parent.floorUs + DEBT_MAX_US);
      // While nobody waits, nobody is owed anything.
      if (this.all.waiting === 0) parent.floorUs = Math.max(parent.floorUs, one.usedUs);
    }
  }

  #open(id: string, parent: Account): Account {
    this.#count++;
    const account = new Account(id, parent);
    parent.children.set(id, account);
    return account;
  }

  /** Forgets accounts that nothing refers to and that owe nothing. */
  #forget(): void {
    this.#count = 0;
    for (const subject of this.all.children.values()) {
      for (const project of subject.children.values()) this.#forgetOne(project);
      this.#forgetOne(subject);
    }
    this.#forgetFrom = Math.max(FORGET_FROM, 2 * this.#count);
  }

  #forgetOne(account: Account): void {
    const { users, waiting, children, usedUs } = account;
    const parent = account.parent as Account;
    if (users === 0 && waiting === 0 && children.size === 0 && usedUs <= parent.floorUs)
      parent.children.delete(account.id);
    else this.#count++;
  }
}
