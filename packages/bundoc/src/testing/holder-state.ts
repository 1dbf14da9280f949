import { type Copy, emptyCopy, isSubset, type Key, LEASE, type StorageId, Violation } from './holder-copy.ts';

export const RULES = {
  /** `accept` takes an offer only if it was made under the present generation of the holder. */
  offersEndWithGeneration: true,
  /** Every call of a storage names the present generation. */
  callsNameGeneration: true,
  /** A source in doubt advances its generation before it withdraws. */
  doubtAdvances: true,
  /** A target neither accepts by itself nor gives whole content up. */
  targetKeepsWhole: true,
  /** The mover advances the generation of the target before the target accepts. */
  moverStartsTarget: true,
  /** The client sends an intent once. Without an answer the storage advances before it asks again. */
  intentIsTriedOnce: true,
  /** A take-over waits for the leases of the former holder. */
  takeOverWaits: true,
};
export type Rules = typeof RULES;

/** What is so in a model of holders, known or not. */
export class HolderState {
  readonly rules: Rules;
  readonly copies: Copy[] = [emptyCopy('s'), emptyCopy('t')];
  now = 0;
  key: Key | undefined;
  readonly generations = new Map<StorageId, number | 'open'>();
  readonly owners = new Map<number, Copy>();
  readonly releases = new Map<StorageId, number>();
  serial = 0;
  /** Acknowledged, and neither deleted on request nor given up on record. */
  kept = new Set<number>();
  /** Somebody asked for the deletion, and nobody took that back. */
  isDeletionAsked = false;
  /** Until when a copy that was superseded beside its running original may write: the documented limit. */
  readonly excusedUntil = new Map<Copy, number>();

  constructor(rules: Rules) {
    this.rules = rules;
  }

  // What is known of them all.

  isCurrent(copy: Copy): boolean {
    const generation = this.generations.get(copy.id);
    return typeof generation === 'number' && this.owners.get(generation) === copy;
  }

  isHolder(copy: Copy): boolean {
    return this.key?.holder === copy.id && this.isCurrent(copy);
  }

  isLeased(id: StorageId): boolean {
    return this.now < (this.releases.get(id) ?? Number.NEGATIVE_INFINITY) + LEASE;
  }

  excuse(id: StorageId): void {
    for (const copy of this.copies) if (copy.id === id) this.excusedUntil.set(copy, this.now + LEASE);
  }

  /** On record: what this copy does not have is given up. */
  giveUpFor({ durable: { content } }: Copy): void {
    this.kept = new Set([...this.kept].filter((write) => content?.writes.has(write) === true));
  }

  requireKept({ id, durable: { content } }: Copy): void {
    if (!isSubset(this.kept, content?.writes ?? new Set()))
      throw new Violation(`a copy of ${id} serves the project without writes that were acknowledged`);
  }

  addCandidate(copy: Copy): number {
    const fresh = ++this.serial;
    this.owners.set(fresh, copy);
    copy.durable.candidates = [...copy.durable.candidates, fresh].slice(-15);
    return fresh;
  }

  change(change: Partial<Key>): number {
    const receipt = ++this.serial;
    if (this.key !== undefined) Object.assign(this.key, change, { receipt });
    return receipt;
  }
}
