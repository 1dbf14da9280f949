export const LEASE = 10;
export type Fate = 'answered' | 'request lost' | 'answer lost' | 'late' | 'doubled';
export type StorageId = 's' | 't';

export interface Content {
  readonly birth: number;
  readonly writes: ReadonlySet<number>;
}

export interface Key {
  holder: StorageId | 'unknown' | null;
  offer: { readonly to: StorageId; readonly move: number; readonly generation: number } | undefined;
  state: 'enabled' | 'intended' | 'destroyed';
  /** The latest change. */
  receipt: number;
}

type Acting = { readonly storage: StorageId; readonly generation: number };
export type Call =
  | ({ readonly op: 'export' | 'claim' | 'intent' | 'removed' } & Acting)
  | ({ readonly op: 'create' } & Acting)
  | ({ readonly op: 'offer'; readonly to: StorageId; readonly move: number } & Acting)
  | ({ readonly op: 'withdraw' | 'accept'; readonly move: number } & Acting)
  | ({ readonly op: 'shred'; readonly receipt: number } & Acting)
  | ({ readonly op: 'deletions' } & Acting)
  | {
      readonly op: 'advance';
      readonly storage: StorageId;
      readonly from: readonly number[];
      readonly to: number;
    };
export type Answer =
  | 'ok'
  | 'missing'
  | 'exists'
  | 'unheld'
  | 'elsewhere'
  | 'superseded'
  | 'intended'
  | 'destroyed'
  | 'not offered'
  | 'precondition'
  | { readonly state: Key['state']; readonly receipt: number };

/** What a storage has on its disk, or in its rows; a backup or a clone is a copy of it. */
export interface Durable {
  confirmed: number | undefined;
  candidates: readonly number[];
  content: Content | undefined;
  /** Of a source. */
  mark: { readonly move: number; readonly state: 'leaving' | 'moved'; readonly to: StorageId } | undefined;
  /** Of a target. */
  incoming: { readonly move: number; readonly isWhole: boolean } | undefined;
  /** Content of projects that moved away: out of sight. */
  putAway: readonly Content[];
}

export interface Move {
  readonly id: number;
  readonly target: Copy;
  step: 'copied' | 'fenced' | 'whole' | 'offered' | 'accepted' | 'in doubt';
  /** The source's, as of the fence. */
  generation: number;
  isTargetStarted: boolean;
}

/** A storage, or a copy of one, and the process on it. */
export class Copy {
  readonly id: StorageId;
  readonly durable: Durable;
  isRunning = false;
  /** Confirmed by this process. */
  generation: number | undefined;
  /** It writes while this is in the future. */
  leaseUntil = Number.NEGATIVE_INFINITY;
  isOpen = false;
  move: Move | undefined;
  deletion: { step: 'asked' | 'closed' | 'destroyed' | 'emptied'; receipt: number } | undefined;
  /** A call that may yet take effect has no answer. */
  isInDoubt = false;

  constructor(id: StorageId, durable: Durable) {
    this.id = id;
    this.durable = durable;
  }

  crash(): void {
    Object.assign(this, { isRunning: false, generation: undefined, isOpen: false, move: undefined });
    Object.assign(this, { deletion: undefined, isInDoubt: false, leaseUntil: Number.NEGATIVE_INFINITY });
  }
}

export class Violation extends Error {}

export function emptyCopy(id: StorageId): Copy {
  const nothing = { content: undefined, mark: undefined, incoming: undefined };
  return new Copy(id, { confirmed: undefined, candidates: [], putAway: [], ...nothing });
}

export function putAway(durable: Durable): void {
  if (durable.content !== undefined) durable.putAway = [...durable.putAway, durable.content];
  durable.content = undefined;
}

export function isSubset(some: ReadonlySet<number>, all: ReadonlySet<number>): boolean {
  return [...some].every((one) => all.has(one));
}
