import { type Copy, emptyCopy, isSubset, type Key, LEASE, type StorageId, Violation } from './holder-copy.ts';

export const RULES = {
  /** `accept` takes an offer only if it was made under the current generation of the holder. */
  offersEndWithGeneration: true,
  /** Every call of a storage names its current generation. */
  callsNameGeneration: true,
  /** A source that does not know the outcome advances its generation before it withdraws. */
  doubtAdvances: true,
  /** A target does not accept by itself, and does not discard complete content. */
  targetKeepsWhole: true,
  /** The mover advances the generation of the target before the target accepts. */
  moverStartsTarget: true,
  /** The client sends an intent once. Without an answer, the storage advances before it asks again. */
  intentIsTriedOnce: true,
  /** A take-over waits for the leases of the former holder. */
  takeOverWaits: true,
};
export type Rules = typeof RULES;

/** The true state of a model of holders, whether a party knows it or not. */
export class HolderState {
  readonly rules: Rules;
  readonly copies: Copy[] = [emptyCopy('s'), emptyCopy('t')];
  now = 0;
  key: Key | undefined;
  readonly generations = new Map<StorageId, number | 'open'>();
  readonly owners = new Map<number, Copy>();
  readonly releases = new Map<StorageId, number>();
  serial = 0;
  /** Acknowledged writes that were not deleted on request, and whose loss nobody has accepted. */
  kept = new Set<number>();
  /** Whether a deletion was requested and not canceled. */
  isDeletionAsked = false;
  /** Until when a copy may write after it was superseded by its running original: the documented limit. */
  readonly excusedUntil = new Map<Copy, number>();

  constructor(rules: Rules) {
    this.rules = rules;
  }

  // Facts about all copies.

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

  /** Accepts the loss of all writes that this copy lacks. */
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
