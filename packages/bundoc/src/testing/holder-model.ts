import {
  type Content,
  Copy,
  type Durable,
  type Fate,
  isSubset,
  type Key,
  LEASE,
  type Move,
  putAway,
  Violation,
} from './holder-copy.ts';
import { HolderKms } from './holder-kms.ts';
import { HolderState, RULES, type Rules } from './holder-state.ts';

/**
 * A model of BunKMS and of copies of storages that share one project, for
 * `projects/holder-model.prop.test.ts`. It has no I/O: a call is a function call whose request or answer is
 * lost, late or doubled. A test switches a rule off to show the sequence that needs it.
 */
export class World {
  readonly #state: HolderState;
  readonly #kms: HolderKms;
  #backup: Key | undefined;

  constructor(rules: Rules = RULES) {
    this.#state = new HolderState(rules);
    this.#kms = new HolderKms(this.#state);
  }

  get copies(): readonly Copy[] {
    return this.#state.copies;
  }

  copy(index: number): Copy {
    return this.#state.copies[index % this.#state.copies.length] as Copy;
  }

  get keyState(): Key['state'] | undefined {
    return this.#state.key?.state;
  }

  get kept(): ReadonlySet<number> {
    return this.#state.kept;
  }

  // Events of a storage.

  start(copy: Copy): void {
    if (copy.isRunning) return;
    copy.isRunning = true;
    this.#state.addCandidate(copy);
  }

  /** A backup or a clone, stopped. */
  clone(copy: Copy): void {
    if (this.#state.copies.length < 5) this.#state.copies.push(new Copy(copy.id, { ...copy.durable }));
  }

  tick(ticks: number): void {
    this.#state.now += ticks;
  }

  deliver(index: number): void {
    this.#kms.deliver(index);
  }

  // Acts of clients.

  write(copy: Copy): void {
    if (!this.#serves(copy)) return;
    const write = ++this.#state.serial;
    const { content = this.#birth(copy) } = copy.durable;
    copy.durable.content = { ...content, writes: new Set(content.writes).add(write) };
    if (this.#state.isHolder(copy)) {
      this.#state.requireKept(copy);
      this.#state.kept.add(write);
    } else if (
      this.#state.key?.state === 'enabled' &&
      this.#state.now >= (this.#state.excusedUntil.get(copy) ?? 0)
    ) {
      throw new Violation(`a copy of ${copy.id} acknowledges a write and does not hold the key`);
    }
  }

  delete(copy: Copy): void {
    if (!this.#serves(copy) || copy.durable.content === undefined || copy.move !== undefined) return;
    this.#state.isDeletionAsked = true;
    copy.deletion ??= { step: 'asked', receipt: 0 };
  }

  // The next step of a process, with at most one call.

  proceed(copy: Copy, fate: Fate): void {
    if (!copy.isRunning) return;
    if (copy.generation === undefined || copy.isInDoubt) this.#advance(copy, fate);
    else if (copy.deletion !== undefined) this.#proceedDeletion(copy, copy.deletion, fate);
    else if (!copy.isOpen || this.#state.now >= copy.leaseUntil) this.#open(copy, fate);
    else if (copy.durable.mark !== undefined && copy.move === undefined) this.#settle(copy, fate);
  }

  sweep(copy: Copy, fate: Fate): void {
    if (copy.generation === undefined || copy.isInDoubt || copy.deletion !== undefined) return;
    const answer = this.#kms.call({ op: 'deletions', storage: copy.id, generation: copy.generation }, fate);
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

  // Acts of administrators.

  takeOverStorage(copy: Copy): void {
    const candidate = copy.durable.candidates.at(-1);
    if (!copy.isRunning || candidate === undefined || !this.#state.generations.has(copy.id)) return;
    if (this.#state.rules.takeOverWaits && this.#state.isLeased(copy.id)) return;
    this.#state.generations.set(copy.id, candidate);
    if (this.#state.key?.holder === copy.id) this.#state.giveUpFor(copy);
  }

  takeOverKey(copy: Copy, isForced: boolean): void {
    const { content, incoming, mark } = copy.durable;
    if (!this.#state.isCurrent(copy) || content === undefined || incoming !== undefined || mark !== undefined)
      return;
    if (
      this.#state.key === undefined ||
      this.#state.key.state === 'destroyed' ||
      this.#state.key.holder === copy.id
    )
      return;
    const former = this.#state.key.holder;
    if (former === 's' || former === 't') {
      if (this.#state.rules.takeOverWaits && !isForced && this.#state.isLeased(former)) return;
      if (isForced) this.#state.excuse(former);
    }
    this.#state.change({ holder: copy.id, offer: undefined });
    this.#state.giveUpFor(copy);
  }

  takeBackDeletion(): void {
    if (this.#state.key?.state !== 'intended') return;
    this.#state.change({ state: 'enabled' });
    this.#state.isDeletionAsked = this.#state.copies.some(({ deletion }) => deletion?.step === 'asked');
  }

  backUpKms(): void {
    this.#backup = this.#state.key && { ...this.#state.key };
  }

  /** Restores BunKMS from the backup, and from project files. Connections of the former process end. */
  restoreKms(): void {
    if (this.#state.key === undefined || this.#state.key.state !== 'enabled') return;
    this.#kms.cut();
    for (const id of ['s', 't'] as const) this.#state.excuse(id);
    const { receipt } = this.#backup ?? this.#state.key;
    this.#state.key = { holder: 'unknown', offer: undefined, state: 'enabled', receipt: receipt + 1_000 };
  }

  // Invariants.

  requireWhole(): void {
    if (this.#state.kept.size === 0) return;
    const isHere = ({ content, putAway }: Durable) =>
      [content, ...putAway].some((held) => held !== undefined && isSubset(this.#state.kept, held.writes));
    if (!this.#state.copies.some(({ durable }) => isHere(durable)))
      throw new Violation('acknowledged writes are lost');
  }

  /** Whether exactly one current copy serves the project and has all that was acknowledged. */
  requireServed(): void {
    const serving = this.#state.copies.filter((copy) => this.#serves(copy) && this.#state.isHolder(copy));
    if (serving.length !== 1) throw new Violation(`${serving.length} copies serve the project`);
    for (const copy of serving) this.#state.requireKept(copy);
  }

  /**
   * Resolves, as an administrator, superseded copies and keys without a known holder.
   */
  resolve(): void {
    const hasAll = ({ content }: Durable) =>
      content !== undefined && isSubset(this.#state.kept, content.writes);
    for (const copy of this.#state.copies) if (copy.isRunning) this.proceed(copy, 'answered');
    if (this.#state.key?.holder !== 'unknown') return;
    const whole = this.#state.copies.find((copy) => hasAll(copy.durable));
    if (whole === undefined) return;
    whole.crash();
    this.start(whole);
    if (!this.#state.isCurrent(whole)) {
      this.#state.generations.set(whole.id, this.#state.addCandidate(whole));
    }
    whole.durable.incoming = undefined;
    whole.durable.mark = undefined;
    this.#state.change({ holder: whole.id });
  }

  isCurrent(copy: Copy): boolean {
    return this.#state.isCurrent(copy);
  }

  // Storage.

  #serves({ isOpen, leaseUntil, durable: { mark, incoming }, deletion }: Copy): boolean {
    const isFree = mark === undefined && incoming === undefined;
    return (
      isOpen &&
      this.#state.now < leaseUntil &&
      isFree &&
      (deletion === undefined || deletion.step === 'asked')
    );
  }

  #advance(copy: Copy, fate: Fate): void {
    const { durable } = copy;
    const own = durable.candidates.findLast((candidate) => this.#state.owners.get(candidate) === copy);
    const to = own ?? this.#state.addCandidate(copy);
    const from = [durable.confirmed, ...durable.candidates].filter((known) => known !== undefined);
    if (this.#kms.call({ op: 'advance', storage: copy.id, from, to }, fate) !== 'ok') return;
    Object.assign(durable, { confirmed: to, candidates: [] });
    copy.generation = to;
    if (copy.isInDoubt && copy.deletion?.step === 'asked') {
      // Answered 503: nothing has changed, or BunKMS has recorded the deletion and the sweep finds it.
      copy.deletion = undefined;
      if (this.#state.key?.state === 'enabled') this.#state.isDeletionAsked = false;
    }
    copy.isInDoubt = false;
  }

  #open(copy: Copy, fate: Fate): void {
    const { durable, generation = 0 } = copy;
    copy.isOpen = false;
    const acting = { storage: copy.id, generation };
    const requestedAt = this.#state.now;
    const isEmpty = durable.content === undefined && durable.mark === undefined;
    const answer = this.#kms.call({ op: 'export', ...acting }, fate);
    if (answer === 'ok') {
      const { mark, incoming } = durable;
      Object.assign(copy, { isOpen: true, leaseUntil: requestedAt + LEASE });
      if (incoming?.isWhole === true) durable.incoming = undefined;
      else if (incoming !== undefined) copy.isOpen = false;
      if (mark?.state === 'moved' || (mark !== undefined && durable.content === undefined))
        copy.isOpen = false;
    } else if (answer === 'missing' && isEmpty) this.#kms.call({ op: 'create', ...acting }, fate);
    else if (answer === 'unheld' && isEmpty) this.#kms.call({ op: 'claim', ...acting }, fate);
    else if (answer === 'elsewhere' && durable.mark?.state === 'leaving' && copy.move === undefined)
      putAway(durable);
    else if (answer === 'superseded') {
      copy.generation = undefined;
      this.#state.addCandidate(copy);
    } else if (
      !this.#state.rules.targetKeepsWhole &&
      answer === 'elsewhere' &&
      durable.incoming?.isWhole === true
    ) {
      const call = { op: 'accept', ...acting, move: durable.incoming.move } as const;
      if (this.#kms.call(call, fate) === 'not offered')
        Object.assign(durable, { content: undefined, incoming: undefined });
    }
  }

  #birth(copy: Copy): Content {
    if (this.#state.isHolder(copy) && this.#state.kept.size > 0)
      throw new Violation(`a copy of ${copy.id} makes a second project under the key`);
    return { birth: ++this.#state.serial, writes: new Set() };
  }

  #proceedDeletion(copy: Copy, deletion: NonNullable<Copy['deletion']>, fate: Fate): void {
    const acting = { storage: copy.id, generation: copy.generation ?? 0 };
    if (deletion.step === 'asked') {
      const answer = this.#kms.call({ op: 'intent', ...acting }, fate);
      if (answer === undefined) copy.isInDoubt = true;
      else if (typeof answer === 'object')
        Object.assign(deletion, { step: 'closed', receipt: answer.receipt });
      else this.#refuseDeletion(copy);
    } else if (deletion.step === 'closed') {
      copy.isOpen = false;
      const answer = this.#kms.call({ op: 'shred', ...acting, receipt: deletion.receipt }, fate);
      if (answer === 'ok') deletion.step = 'destroyed';
      else if (answer !== undefined) copy.deletion = undefined;
    } else if (deletion.step === 'destroyed') {
      Object.assign(copy.durable, { content: undefined, mark: undefined, incoming: undefined });
      deletion.step = 'emptied';
    } else if (this.#kms.call({ op: 'removed', ...acting }, fate) !== undefined) copy.deletion = undefined;
  }

  #refuseDeletion(copy: Copy): void {
    copy.deletion = undefined;
    if (this.#state.key?.state === 'enabled') this.#state.isDeletionAsked = false;
  }

  #beginMove(copy: Copy, target: Copy): void {
    const { durable } = target;
    if (!this.#serves(copy) || copy.durable.content === undefined || copy.deletion !== undefined) return;
    if (target.id === copy.id || durable.confirmed === undefined || target.move !== undefined) return;
    if (durable.incoming === undefined && durable.content !== undefined) return;
    // The mover reads the key as the source, which holds it, so marks of earlier moves have no effect.
    const id = ++this.#state.serial;
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

  /** @returns false when the move is interrupted. */
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
      return this.#kms.call(call, fate) === 'ok';
    }
    // The mover has confirmed it itself, because the one in the storage may belong to a copy.
    const confirmed = this.#state.rules.moverStartsTarget ? target.generation : target.durable.confirmed;
    if (confirmed === undefined) return false;
    move.step = 'accepted';
    const call = { op: 'accept', storage: target.id, generation: confirmed, move: id } as const;
    return this.#kms.call(call, fate) === 'ok';
  }

  #startTarget(move: Move, fate: Fate): void {
    const { target } = move;
    if (!this.#state.rules.moverStartsTarget) move.isTargetStarted = true;
    if (move.isTargetStarted || !target.isRunning) return;
    const before = target.generation;
    if (!target.isInDoubt) this.#state.addCandidate(target);
    target.isInDoubt = true;
    this.#advance(target, fate);
    move.isTargetStarted = !target.isInDoubt && target.generation !== before;
  }

  #doubt(copy: Copy, move: Move): void {
    move.step = 'in doubt';
    copy.isInDoubt = this.#state.rules.doubtAdvances;
    if (copy.isInDoubt) this.#state.addCandidate(copy);
  }

  #settle(copy: Copy, fate: Fate): void {
    const { durable, generation } = copy;
    const { mark } = durable;
    if (mark?.state !== 'leaving' || generation === undefined) return;
    const answer = this.#kms.call({ op: 'withdraw', storage: copy.id, generation, move: mark.move }, fate);
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
}
