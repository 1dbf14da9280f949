import type { ShareKey } from '../shares/share-key.ts';

/** Cost of every request beside its measured costs, microseconds. */
export const REQUEST_US = 40;
/** Cost of a byte that is received, sent or decrypted, microseconds: 0.3 ms a MiB, measured in 2024. */
export const BYTE_US = 300 / 1_048_576;
/** Debt beyond this is forgiven. An account waits at most until others have used as much. */
const DEBT_MAX_US = 1_000_000;
/** An idle account counts as having used this much less than others. So short work goes before long work. */
const IDLE_CREDIT_US = 2_000;
/** With this many accounts, those that are no longer needed are removed. */
const FORGET_FROM = 1_024;

/** The units and waiting requests of an account in one pool. */
export interface Use {
  held: number;
  /** Number of its waiting requests. */
  waiting: number;
  /** Number of its children that hold units or wait. */
  active: number;
}

/** What a subject, or one of its projects, has used of the process and holds of it. */
export class Account {
  readonly id: string;
  /** For a project, the account of its subject; for a subject, the account of all. */
  readonly parent: Account | undefined;
  readonly children = new Map<string, Account>();
  /** What it has used, microseconds. It is only comparable with other children of the same parent. */
  usedUs = Number.NEGATIVE_INFINITY;
  /** The sum of its charges, microseconds. */
  chargedUs = 0;
  /** The largest `usedUs` that a child had when its turn came. */
  floorUs = 0;
  /** Number of its items that wait for a turn. */
  waiting = 0;
  /** Number of references to it. An account with any is not removed. */
  users = 0;
  /** By number of the pool. */
  readonly #uses: Use[] = [];

  constructor(id: string, parent: Account | undefined) {
    this.id = id;
    this.parent = parent;
  }

  /** The account of its subject. */
  get subject(): Account {
    return this.parent as Account;
  }

  /** Its `usedUs` if an item of it came now. Time that it did not use while it was idle is lost. */
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
 * queuing (P. Goyal, H. Vin and H. Cheng, 1996), but each cost is charged after the work. So accounts that
 * use little come first.
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

  /** The account of a project. Requests without a project share the one with an empty id. */
  of({ subject, project }: ShareKey): Account {
    // Before the look-ups, because it must not remove an account that they find.
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
      // While nobody waits, no account is in debt.
      if (this.all.waiting === 0) parent.floorUs = Math.max(parent.floorUs, one.usedUs);
    }
  }

  #open(id: string, parent: Account): Account {
    this.#count++;
    const account = new Account(id, parent);
    parent.children.set(id, account);
    return account;
  }

  /** Removes accounts without references and without debt. */
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
