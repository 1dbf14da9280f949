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

/** The durable state of a storage. A backup or a clone copies it. */
export interface Durable {
  confirmed: number | undefined;
  candidates: readonly number[];
  content: Content | undefined;
  /** The mark of a move out of this storage. */
  mark: { readonly move: number; readonly state: 'leaving' | 'moved'; readonly to: StorageId } | undefined;
  /** The move into this storage. */
  incoming: { readonly move: number; readonly isWhole: boolean } | undefined;
  /** Content of projects that moved away. It is not served. */
  putAway: readonly Content[];
}

export interface Move {
  readonly id: number;
  readonly target: Copy;
  step: 'copied' | 'fenced' | 'whole' | 'offered' | 'accepted' | 'in doubt';
  /** The generation of the source when it was fenced. */
  generation: number;
  isTargetStarted: boolean;
}

/** A storage, or a copy of one, and the process on it. */
export class Copy {
  readonly id: StorageId;
  readonly durable: Durable;
  isRunning = false;
  /** The generation that this process has confirmed. */
  generation: number | undefined;
  /** It may write until this time. */
  leaseUntil = Number.NEGATIVE_INFINITY;
  isOpen = false;
  move: Move | undefined;
  deletion: { step: 'asked' | 'closed' | 'destroyed' | 'emptied'; receipt: number } | undefined;
  /** Whether a call without an answer may still take effect. */
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
