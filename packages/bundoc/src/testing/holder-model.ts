/**
 * A model of BunKMS and of copies of storages that share one project, for
 * `project/holder-model.prop.test.ts`. It has no I/O: a call is a function call whose request or answer is
 * lost, late or doubled. A test switches a rule off to show the sequence that needs it.
 */

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

const LEASE = 10;
export type Fate = 'answered' | 'request lost' | 'answer lost' | 'late' | 'doubled';
type StorageId = 's' | 't';

interface Content {
  readonly birth: number;
  readonly writes: ReadonlySet<number>;
}

interface Key {
  holder: StorageId | 'unknown' | null;
  offer: { readonly to: StorageId; readonly move: number; readonly generation: number } | undefined;
  state: 'enabled' | 'intended' | 'destroyed';
  /** The latest change. */
  receipt: number;
}

type Acting = { readonly storage: StorageId; readonly generation: number };
type Call =
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
type Answer =
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
interface Durable {
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

interface Move {
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

export class World {
  readonly #rules: Rules;
  readonly copies: Copy[] = [emptyCopy('s'), emptyCopy('t')];
  now = 0;
  #key: Key | undefined;
  #backup: Key | undefined;
  readonly #generations = new Map<StorageId, number | 'open'>();
  readonly #owners = new Map<number, Copy>();
  readonly #releases = new Map<StorageId, number>();
  #late: Call[] = [];
  #serial = 0;
  /** Acknowledged, and neither deleted on request nor given up on record. */
  #kept = new Set<number>();
  /** Somebody asked for the deletion, and nobody took that back. */
  #isDeletionAsked = false;
  /** Until when a copy that was superseded beside its running original may write: the documented limit. */
  readonly #excusedUntil = new Map<Copy, number>();

  constructor(rules: Rules = RULES) {
    this.#rules = rules;
  }

  copy(index: number): Copy {
    return this.copies[index % this.copies.length] as Copy;
  }

  get keyState(): Key['state'] | undefined {
    return this.#key?.state;
  }

  get kept(): ReadonlySet<number> {
    return this.#kept;
  }

  // What happens to a storage.

  start(copy: Copy): void {
    if (copy.isRunning) return;
    copy.isRunning = true;
    this.#addCandidate(copy);
  }

  /** A backup or a clone, stopped. */
  clone(copy: Copy): void {
    if (this.copies.length < 5) this.copies.push(new Copy(copy.id, { ...copy.durable }));
  }

  tick(ticks: number): void {
    this.now += ticks;
  }

  deliver(index: number): void {
    const [call] = this.#late.splice(index % Math.max(1, this.#late.length), 1);
    if (call !== undefined) this.#handle(call);
  }

  // What clients do.

  write(copy: Copy): void {
    if (!this.#serves(copy)) return;
    const write = ++this.#serial;
    const { content = this.#birth(copy) } = copy.durable;
    copy.durable.content = { ...content, writes: new Set(content.writes).add(write) };
    if (this.#isHolder(copy)) {
      this.#requireKept(copy);
      this.#kept.add(write);
    } else if (this.#key?.state === 'enabled' && this.now >= (this.#excusedUntil.get(copy) ?? 0)) {
      throw new Violation(`a copy of ${copy.id} acknowledges a write and does not hold the key`);
    }
  }

  delete(copy: Copy): void {
    if (!this.#serves(copy) || copy.durable.content === undefined || copy.move !== undefined) return;
    this.#isDeletionAsked = true;
    copy.deletion ??= { step: 'asked', receipt: 0 };
  }

  // What a process does next; one call at most.

  proceed(copy: Copy, fate: Fate): void {
    if (!copy.isRunning) return;
    if (copy.generation === undefined || copy.isInDoubt) this.#advance(copy, fate);
    else if (copy.deletion !== undefined) this.#proceedDeletion(copy, copy.deletion, fate);
    else if (!copy.isOpen || this.now >= copy.leaseUntil) this.#open(copy, fate);
    else if (copy.durable.mark !== undefined && copy.move === undefined) this.#settle(copy, fate);
  }

  sweep(copy: Copy, fate: Fate): void {
    if (copy.generation === undefined || copy.isInDoubt || copy.deletion !== undefined) return;
    const answer = this.#call({ op: 'deletions', storage: copy.id, generation: copy.generation }, fate);
    if (typeof answer !== 'object') return;
    const step = answer.state === 'destroyed' ? 'destroyed' : 'closed';
    if (answer.state !== 'enabled') copy.deletion = { step, receipt: answer.receipt };
  }

  proceedMove(copy: Copy, target: Copy, fate: Fate): void {
    const { move } = copy;
    if (copy.generation === undefined) return;
    if (move === undefined) this.#beginMove(copy, target);
    else if (move.step === 'copied') this.#fence(copy, move, fate);
    else if (move.step === 'accepted') this.#leave(copy);
    else if (move.step !== 'in doubt') {
      if (!this.#cutOver(copy, move, fate)) this.#doubt(copy, move);
    } else if (!copy.isInDoubt) this.#settle(copy, fate);
  }

  // What administrators do.

  takeOverStorage(copy: Copy): void {
    const candidate = copy.durable.candidates.at(-1);
    if (!copy.isRunning || candidate === undefined || !this.#generations.has(copy.id)) return;
    if (this.#rules.takeOverWaits && this.#isLeased(copy.id)) return;
    this.#generations.set(copy.id, candidate);
    if (this.#key?.holder === copy.id) this.#giveUpFor(copy);
  }

  takeOverKey(copy: Copy, isForced: boolean): void {
    const { content, incoming, mark } = copy.durable;
    if (!this.#isCurrent(copy) || content === undefined || incoming !== undefined || mark !== undefined)
      return;
    if (this.#key === undefined || this.#key.state === 'destroyed' || this.#key.holder === copy.id) return;
    const former = this.#key.holder;
    if (former === 's' || former === 't') {
      if (this.#rules.takeOverWaits && !isForced && this.#isLeased(former)) return;
      if (isForced) this.#excuse(former);
    }
    this.#change({ holder: copy.id, offer: undefined });
    this.#giveUpFor(copy);
  }

  takeBackDeletion(): void {
    if (this.#key?.state !== 'intended') return;
    this.#change({ state: 'enabled' });
    this.#isDeletionAsked = this.copies.some(({ deletion }) => deletion?.step === 'asked');
  }

  backUpKms(): void {
    this.#backup = this.#key && { ...this.#key };
  }

  /** From the backup, and by recovery from project files. Connections of the former process are gone. */
  restoreKms(): void {
    if (this.#key === undefined || this.#key.state !== 'enabled') return;
    this.#late = [];
    for (const id of ['s', 't'] as const) this.#excuse(id);
    const { receipt } = this.#backup ?? this.#key;
    this.#key = { holder: 'unknown', offer: undefined, state: 'enabled', receipt: receipt + 1_000 };
  }

  // What must hold at any time.

  requireWhole(): void {
    if (this.#kept.size === 0) return;
    const isHere = ({ content, putAway }: Durable) =>
      [content, ...putAway].some((held) => held !== undefined && isSubset(this.#kept, held.writes));
    if (!this.copies.some(({ durable }) => isHere(durable)))
      throw new Violation('acknowledged writes are lost');
  }

  /** Whether exactly one current copy serves the project and has all that was acknowledged. */
  requireServed(): void {
    const serving = this.copies.filter((copy) => this.#serves(copy) && this.#isHolder(copy));
    if (serving.length !== 1) throw new Violation(`${serving.length} copies serve the project`);
    for (const copy of serving) this.#requireKept(copy);
  }

  /**
   * An administrator ends what only an administrator may: superseded copies and keys without a known holder.
   */
  resolve(): void {
    const hasAll = ({ content }: Durable) => content !== undefined && isSubset(this.#kept, content.writes);
    for (const copy of this.copies) if (copy.isRunning) this.proceed(copy, 'answered');
    if (this.#key?.holder !== 'unknown') return;
    const whole = this.copies.find((copy) => hasAll(copy.durable));
    if (whole === undefined) return;
    whole.crash();
    this.start(whole);
    if (!this.#isCurrent(whole)) {
      this.#generations.set(whole.id, this.#addCandidate(whole));
    }
    whole.durable.incoming = undefined;
    whole.durable.mark = undefined;
    this.#change({ holder: whole.id });
  }

  isCurrent(copy: Copy): boolean {
    return this.#isCurrent(copy);
  }

  // Storage.

  #serves({ isOpen, leaseUntil, durable: { mark, incoming }, deletion }: Copy): boolean {
    const isFree = mark === undefined && incoming === undefined;
    return isOpen && this.now < leaseUntil && isFree && (deletion === undefined || deletion.step === 'asked');
  }

  #addCandidate(copy: Copy): number {
    const fresh = ++this.#serial;
    this.#owners.set(fresh, copy);
    copy.durable.candidates = [...copy.durable.candidates, fresh].slice(-15);
    return fresh;
  }

  #advance(copy: Copy, fate: Fate): void {
    const { durable } = copy;
    const own = durable.candidates.findLast((candidate) => this.#owners.get(candidate) === copy);
    const to = own ?? this.#addCandidate(copy);
    const from = [durable.confirmed, ...durable.candidates].filter((known) => known !== undefined);
    if (this.#call({ op: 'advance', storage: copy.id, from, to }, fate) !== 'ok') return;
    Object.assign(durable, { confirmed: to, candidates: [] });
    copy.generation = to;
    if (copy.isInDoubt && copy.deletion?.step === 'asked') {
      // Answered 503: nothing changed, or the deletion is on record and is found by the sweep.
      copy.deletion = undefined;
      if (this.#key?.state === 'enabled') this.#isDeletionAsked = false;
    }
    copy.isInDoubt = false;
  }

  #open(copy: Copy, fate: Fate): void {
    const { durable, generation = 0 } = copy;
    copy.isOpen = false;
    const acting = { storage: copy.id, generation };
    const requestedAt = this.now;
    const isEmpty = durable.content === undefined && durable.mark === undefined;
    const answer = this.#call({ op: 'export', ...acting }, fate);
    if (answer === 'ok') {
      const { mark, incoming } = durable;
      Object.assign(copy, { isOpen: true, leaseUntil: requestedAt + LEASE });
      if (incoming?.isWhole === true) durable.incoming = undefined;
      else if (incoming !== undefined) copy.isOpen = false;
      if (mark?.state === 'moved' || (mark !== undefined && durable.content === undefined))
        copy.isOpen = false;
    } else if (answer === 'missing' && isEmpty) this.#call({ op: 'create', ...acting }, fate);
    else if (answer === 'unheld' && isEmpty) this.#call({ op: 'claim', ...acting }, fate);
    else if (answer === 'elsewhere' && durable.mark?.state === 'leaving' && copy.move === undefined)
      putAway(durable);
    else if (answer === 'superseded') {
      copy.generation = undefined;
      this.#addCandidate(copy);
    } else if (
      !this.#rules.targetKeepsWhole &&
      answer === 'elsewhere' &&
      durable.incoming?.isWhole === true
    ) {
      const call = { op: 'accept', ...acting, move: durable.incoming.move } as const;
      if (this.#call(call, fate) === 'not offered')
        Object.assign(durable, { content: undefined, incoming: undefined });
    }
  }

  #birth(copy: Copy): Content {
    if (this.#isHolder(copy) && this.#kept.size > 0)
      throw new Violation(`a copy of ${copy.id} makes a second project under the key`);
    return { birth: ++this.#serial, writes: new Set() };
  }

  #proceedDeletion(copy: Copy, deletion: NonNullable<Copy['deletion']>, fate: Fate): void {
    const acting = { storage: copy.id, generation: copy.generation ?? 0 };
    if (deletion.step === 'asked') {
      const answer = this.#call({ op: 'intent', ...acting }, fate);
      if (answer === undefined) copy.isInDoubt = true;
      else if (typeof answer === 'object')
        Object.assign(deletion, { step: 'closed', receipt: answer.receipt });
      else this.#refuseDeletion(copy);
    } else if (deletion.step === 'closed') {
      copy.isOpen = false;
      const answer = this.#call({ op: 'shred', ...acting, receipt: deletion.receipt }, fate);
      if (answer === 'ok') deletion.step = 'destroyed';
      else if (answer !== undefined) copy.deletion = undefined;
    } else if (deletion.step === 'destroyed') {
      Object.assign(copy.durable, { content: undefined, mark: undefined, incoming: undefined });
      deletion.step = 'emptied';
    } else if (this.#call({ op: 'removed', ...acting }, fate) !== undefined) copy.deletion = undefined;
  }

  #refuseDeletion(copy: Copy): void {
    copy.deletion = undefined;
    if (this.#key?.state === 'enabled') this.#isDeletionAsked = false;
  }

  #beginMove(copy: Copy, target: Copy): void {
    const { durable } = target;
    if (!this.#serves(copy) || copy.durable.content === undefined || copy.deletion !== undefined) return;
    if (target.id === copy.id || durable.confirmed === undefined || target.move !== undefined) return;
    if (durable.incoming === undefined && durable.content !== undefined) return;
    // The mover reads the key as the source, which is the holder: so marks of earlier moves are over.
    const id = ++this.#serial;
    Object.assign(durable, { content: undefined, mark: undefined, incoming: { move: id, isWhole: false } });
    Object.assign(target, { isOpen: false });
    copy.move = { id, target, step: 'copied', generation: 0, isTargetStarted: false };
  }

  #fence(copy: Copy, move: Move, fate: Fate): void {
    if (copy.deletion !== undefined || copy.isInDoubt || !this.#serves(copy)) return;
    if (move.isTargetStarted) {
      Object.assign(move, { step: 'fenced', generation: copy.generation });
      copy.durable.mark = { move: move.id, state: 'leaving', to: move.target.id };
    } else this.#startTarget(move, fate);
  }

  /** @returns false when the move is cut short. */
  #cutOver(copy: Copy, move: Move, fate: Fate): boolean {
    const { id, target, generation } = move;
    if (move.step !== 'whole' && target.durable.incoming?.move !== id) return false;
    if (move.step === 'fenced') {
      Object.assign(target.durable, {
        content: copy.durable.content,
        incoming: { move: id, isWhole: true },
      });
      move.step = 'whole';
      return true;
    }
    if (move.step === 'whole') {
      const call = { op: 'offer', storage: copy.id, generation, to: target.id, move: id } as const;
      move.step = 'offered';
      return this.#call(call, fate) === 'ok';
    }
    // Confirmed to the mover itself: what stands in the storage may be a copy's.
    const confirmed = this.#rules.moverStartsTarget ? target.generation : target.durable.confirmed;
    if (confirmed === undefined) return false;
    move.step = 'accepted';
    const call = { op: 'accept', storage: target.id, generation: confirmed, move: id } as const;
    return this.#call(call, fate) === 'ok';
  }

  #startTarget(move: Move, fate: Fate): void {
    const { target } = move;
    if (!this.#rules.moverStartsTarget) move.isTargetStarted = true;
    if (move.isTargetStarted || !target.isRunning) return;
    const before = target.generation;
    if (!target.isInDoubt) this.#addCandidate(target);
    target.isInDoubt = true;
    this.#advance(target, fate);
    move.isTargetStarted = !target.isInDoubt && target.generation !== before;
  }

  #doubt(copy: Copy, move: Move): void {
    move.step = 'in doubt';
    copy.isInDoubt = this.#rules.doubtAdvances;
    if (copy.isInDoubt) this.#addCandidate(copy);
  }

  #settle(copy: Copy, fate: Fate): void {
    const { durable, generation } = copy;
    const { mark } = durable;
    if (mark?.state !== 'leaving' || generation === undefined) return;
    const answer = this.#call({ op: 'withdraw', storage: copy.id, generation, move: mark.move }, fate);
    if (answer === 'ok') {
      durable.mark = undefined;
      copy.move = undefined;
    } else if (answer === 'elsewhere') this.#leave(copy);
  }

  #leave(copy: Copy): void {
    const { durable } = copy;
    if (durable.mark !== undefined) durable.mark = { ...durable.mark, state: 'moved' };
    putAway(durable);
    Object.assign(copy, { move: undefined, isOpen: false });
  }

  // BunKMS.

  #call(call: Call, fate: Fate): Answer | undefined {
    // An intent is tried once: the late one of two tries would undo what an administrator did after the
    // other.
    const isTriedOnce = call.op === 'intent' && this.#rules.intentIsTriedOnce;
    if (fate === 'late' || (fate === 'doubled' && !isTriedOnce)) this.#late.push(call);
    if (fate === 'late' || fate === 'request lost') return undefined;
    const answer = this.#handle(call);
    return fate === 'answer lost' ? undefined : answer;
  }

  #change(change: Partial<Key>): number {
    const receipt = ++this.#serial;
    if (this.#key !== undefined) Object.assign(this.#key, change, { receipt });
    return receipt;
  }

  #handle(call: Call): Answer {
    if (call.op === 'advance') return this.#handleAdvance(call);
    const { storage, generation } = call;
    if (call.op === 'create') {
      if (this.#key !== undefined) return 'exists';
      if (this.copies.some(({ durable }) => durable.content !== undefined))
        throw new Violation('a key is created for a project with content');
      this.#key = { holder: storage, offer: undefined, state: 'enabled', receipt: ++this.#serial };
      return 'ok';
    }
    const key = this.#key;
    const isCurrent = this.#generations.get(storage) === generation;
    if (key === undefined) return 'missing';
    if (!isCurrent && (call.op === 'export' || this.#rules.callsNameGeneration)) return 'superseded';
    if (call.op === 'deletions') return key.holder === storage ? key : 'missing';
    if (call.op === 'removed') {
      if (key.state === 'destroyed' && key.holder === storage) this.#change({ holder: null });
      return 'ok';
    }
    if (key.state === 'destroyed') return call.op === 'shred' ? 'ok' : 'destroyed';
    if (call.op === 'claim') {
      if (key.holder === null) this.#change({ holder: storage });
      return key.holder === storage ? 'ok' : 'elsewhere';
    }
    if (call.op === 'accept') return this.#handleAccept(key, storage, call.move);
    if (key.holder === null || key.holder === 'unknown') return 'unheld';
    if (key.holder !== storage) return 'elsewhere';
    return this.#handleOfHolder(key, call);
  }

  #handleOfHolder(key: Key, call: Exclude<Call, { readonly op: 'advance' }>): Answer {
    const { storage, generation } = call;
    if (call.op === 'intent') {
      if (key.state === 'enabled') this.#change({ state: 'intended', offer: undefined });
      return key;
    }
    if (call.op === 'shred') {
      if (key.state !== 'intended' || key.receipt !== call.receipt) return 'precondition';
      if (!this.#isDeletionAsked) throw new Violation('a key is destroyed that nobody asked to destroy');
      this.#kept.clear();
      this.#change({ state: 'destroyed' });
      return 'ok';
    }
    if (call.op === 'withdraw') {
      if (key.offer?.move === call.move) this.#change({ offer: undefined });
      return 'ok';
    }
    if (key.state === 'intended') return 'intended';
    if (call.op === 'offer') this.#change({ offer: { to: call.to, move: call.move, generation } });
    else this.#releases.set(storage, this.now);
    return 'ok';
  }

  #handleAccept(key: Key, storage: StorageId, move: number): Answer {
    if (key.holder === storage) return 'ok';
    const { offer } = key;
    if (offer?.to !== storage || offer.move !== move || key.holder === null || key.holder === 'unknown')
      return 'not offered';
    if (this.#rules.offersEndWithGeneration && this.#generations.get(key.holder) !== offer.generation)
      return 'not offered';
    this.#change({ holder: storage, offer: undefined });
    return 'ok';
  }

  #handleAdvance({ storage, from, to }: Extract<Call, { readonly op: 'advance' }>): Answer {
    const current = this.#generations.get(storage);
    if (current === to) return 'ok';
    if (current !== undefined && current !== 'open' && !from.includes(current)) return 'superseded';
    const former = typeof current === 'number' ? this.#owners.get(current) : undefined;
    const copy = this.#owners.get(to);
    this.#generations.set(storage, to);
    // A copy that is younger than the last advance: nobody can tell it from its original.
    if (copy !== undefined && former !== undefined && former !== copy) {
      this.#excusedUntil.set(former, this.now + LEASE);
      if (this.#key?.holder === storage) this.#giveUpFor(copy);
    }
    return 'ok';
  }

  // What is known of them all.

  #isCurrent(copy: Copy): boolean {
    const generation = this.#generations.get(copy.id);
    return typeof generation === 'number' && this.#owners.get(generation) === copy;
  }

  #isHolder(copy: Copy): boolean {
    return this.#key?.holder === copy.id && this.#isCurrent(copy);
  }

  #isLeased(id: StorageId): boolean {
    return this.now < (this.#releases.get(id) ?? Number.NEGATIVE_INFINITY) + LEASE;
  }

  #excuse(id: StorageId): void {
    for (const copy of this.copies) if (copy.id === id) this.#excusedUntil.set(copy, this.now + LEASE);
  }

  /** On record: what this copy does not have is given up. */
  #giveUpFor({ durable: { content } }: Copy): void {
    this.#kept = new Set([...this.#kept].filter((write) => content?.writes.has(write) === true));
  }

  #requireKept({ id, durable: { content } }: Copy): void {
    if (!isSubset(this.#kept, content?.writes ?? new Set()))
      throw new Violation(`a copy of ${id} serves the project without writes that were acknowledged`);
  }
}

function emptyCopy(id: StorageId): Copy {
  const nothing = { content: undefined, mark: undefined, incoming: undefined };
  return new Copy(id, { confirmed: undefined, candidates: [], putAway: [], ...nothing });
}

function putAway(durable: Durable): void {
  if (durable.content !== undefined) durable.putAway = [...durable.putAway, durable.content];
  durable.content = undefined;
}

function isSubset(some: ReadonlySet<number>, all: ReadonlySet<number>): boolean {
  return [...some].every((one) => all.has(one));
}
