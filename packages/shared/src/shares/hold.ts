import type { ProjectAccount } from './share-accounts.ts';

/** Units that are held until it is disposed. Disposing it again changes nothing. */
export interface Hold extends Disposable {
  readonly units: number;
  /** Holds so many units from now on, whether or not there is room. */
  resize(units: number): void;
}

/** What holds are of. */
export interface HoldOwner {
  change(held: Held, units: number): void;
  end(held: Held): void;
}

export class Held implements Hold {
  readonly account: ProjectAccount;
  ofReserve: boolean;
  readonly #owner: HoldOwner;
  units = 0;
  #isOver = false;

  constructor(owner: HoldOwner, account: ProjectAccount, ofReserve: boolean) {
    this.#owner = owner;
    this.account = account;
    this.ofReserve = ofReserve;
  }

  resize(units: number): void {
    if (!this.#isOver) this.#owner.change(this, units);
  }

  [Symbol.dispose](): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#owner.end(this);
  }
}
