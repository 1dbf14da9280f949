import { AppError } from '@bundoc/shared/contract/app-error';
import type { InstanceLease } from './project-instance.ts';

type Lease = Pick<InstanceLease, 'isUsable'> & Disposable;

/** A project in use by long work. The lease is kept while it is usable, and then acquired again. */
export class HeldLease<L extends Lease> implements Disposable {
  readonly #acquire: () => Promise<L | undefined>;
  #lease: L | undefined;

  constructor(acquire: () => Promise<L | undefined>) {
    this.#acquire = acquire;
  }

  /** Call it before each step. @throws AppError `project_not_found`, and those of the acquisition. */
  async get(): Promise<L> {
    if (this.#lease?.isUsable() === true) return this.#lease;
    this[Symbol.dispose]();
    this.#lease = await this.#acquire();
    if (this.#lease === undefined) throw new AppError('project_not_found');
    return this.#lease;
  }

  [Symbol.dispose](): void {
    this.#lease?.[Symbol.dispose]();
    this.#lease = undefined;
  }
}
