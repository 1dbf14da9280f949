import assert from 'node:assert/strict';
import type { Position, ProjectStore } from '../engine/port/port.ts';
import { type SnapshotOptions, type StoreSnapshot, shownPosition } from '../engine/port/snapshot-port.ts';
import type { HeldLease } from '../projects/held-lease.ts';

type Lease = { readonly store: ProjectStore; isUsable(): boolean } & Disposable;

/**
 * The one state that all steps of a request show. If the project is closed and opened again between two
 * steps, the request continues with the same state as long as its collection has not changed. Documents still
 * count as expired by the time of its first step.
 */
export class HeldSnapshot implements Disposable {
  readonly #lease: HeldLease<Lease>;
  readonly #collection: string;
  #options: SnapshotOptions;
  #held: { readonly store: ProjectStore; readonly snapshot: StoreSnapshot } | undefined;

  constructor(lease: HeldLease<Lease>, collection: string, options: SnapshotOptions) {
    this.#lease = lease;
    this.#collection = collection;
    this.#options = options;
  }

  /** Call it before each step. @throws AppError `snapshot_too_old`, and those of {@link HeldLease.get}. */
  get(): Promise<StoreSnapshot> {
    return this.#lease.get().then(({ store }) => {
      if (this.#held?.store === store) return this.#held.snapshot;
      return this.#take(store);
    });
  }

  async #take(store: ProjectStore): Promise<StoreSnapshot> {
    const former = this.#held?.snapshot;
    this.#options = {
      ...this.#options,
      asOf: former?.asOf ?? this.#options.asOf,
      expiryAtMs: former?.expiryAtMs ?? this.#options.expiryAtMs,
    };
    this[Symbol.dispose]();
    const snapshot = await store.snapshot(this.#collection, this.#options);
    this.#held = { store, snapshot };
    return snapshot;
  }

  /** The position of the last commit that it shows; known after the first read. */
  get asOf(): Position {
    assert(this.#held !== undefined);
    return shownPosition(this.#held.snapshot);
  }

  get keptBytes(): number {
    return this.#held?.snapshot.keptBytes ?? 0;
  }

  /** Keeps the state for later pages. */
  retain(): void {
    this.#held?.snapshot.retain?.();
  }

  /** Allows the project to be closed until the next step. */
  releaseStore(): void {
    this.#lease[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#held?.snapshot[Symbol.dispose]();
    this.#held = undefined;
  }
}
