import {
  type Answer,
  type Call,
  type Fate,
  type Key,
  LEASE,
  type StorageId,
  Violation,
} from './holder-copy.ts';
import type { HolderState } from './holder-state.ts';

/** BunKMS in a model of holders, with the calls that have not arrived yet. */
export class HolderKms {
  readonly #state: HolderState;
  #late: Call[] = [];

  constructor(state: HolderState) {
    this.#state = state;
  }

  /** A late call arrives. */
  deliver(index: number): void {
    const [call] = this.#late.splice(index % Math.max(1, this.#late.length), 1);
    if (call !== undefined) this.#handle(call);
  }

  /** Ends all connections, so that no late call arrives. */
  cut(): void {
    this.#late = [];
  }

  call(call: Call, fate: Fate): Answer | undefined {
    // An intent is sent only once. A late second one would undo an act of an administrator that came after
    // the first.
    const isTriedOnce = call.op === 'intent' && this.#state.rules.intentIsTriedOnce;
    if (fate === 'late' || (fate === 'doubled' && !isTriedOnce)) this.#late.push(call);
    if (fate === 'late' || fate === 'request lost') return undefined;
    const answer = this.#handle(call);
    return fate === 'answer lost' ? undefined : answer;
  }

  #handle(call: Call): Answer {
    if (call.op === 'advance') return this.#handleAdvance(call);
    const { storage, generation } = call;
    if (call.op === 'create') {
      if (this.#state.key !== undefined) return 'exists';
      if (this.#state.copies.some(({ durable }) => durable.content !== undefined))
        throw new Violation('a key is created for a project with content');
      this.#state.key = {
        holder: storage,
        offer: undefined,
        state: 'enabled',
        receipt: ++this.#state.serial,
      };
      return 'ok';
    }
    const key = this.#state.key;
    const isCurrent = this.#state.generations.get(storage) === generation;
    if (key === undefined) return 'missing';
    if (!isCurrent && (call.op === 'export' || this.#state.rules.callsNameGeneration)) return 'superseded';
    if (call.op === 'deletions') return key.holder === storage ? key : 'missing';
    if (call.op === 'removed') {
      if (key.state === 'destroyed' && key.holder === storage) this.#state.change({ holder: null });
      return 'ok';
    }
    if (key.state === 'destroyed') return call.op === 'shred' ? 'ok' : 'destroyed';
    if (call.op === 'claim') {
      if (key.holder === null) this.#state.change({ holder: storage });
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
      if (key.state === 'enabled') this.#state.change({ state: 'intended', offer: undefined });
      return key;
    }
    if (call.op === 'shred') {
      if (key.state !== 'intended' || key.receipt !== call.receipt) return 'precondition';
      if (!this.#state.isDeletionAsked)
        throw new Violation('a key is destroyed that nobody asked to destroy');
      this.#state.kept.clear();
      this.#state.change({ state: 'destroyed' });
      return 'ok';
    }
    if (call.op === 'withdraw') {
      if (key.offer?.move === call.move) this.#state.change({ offer: undefined });
      return 'ok';
    }
    if (key.state === 'intended') return 'intended';
    if (call.op === 'offer') this.#state.change({ offer: { to: call.to, move: call.move, generation } });
    else this.#state.releases.set(storage, this.#state.now);
    return 'ok';
  }

  #handleAccept(key: Key, storage: StorageId, move: number): Answer {
    if (key.holder === storage) return 'ok';
    const { offer } = key;
    if (offer?.to !== storage || offer.move !== move || key.holder === null || key.holder === 'unknown')
      return 'not offered';
    if (
      this.#state.rules.offersEndWithGeneration &&
      this.#state.generations.get(key.holder) !== offer.generation
    )
      return 'not offered';
    this.#state.change({ holder: storage, offer: undefined });
    return 'ok';
  }

  #handleAdvance({ storage, from, to }: Extract<Call, { readonly op: 'advance' }>): Answer {
    const current = this.#state.generations.get(storage);
    if (current === to) return 'ok';
    if (current !== undefined && current !== 'open' && !from.includes(current)) return 'superseded';
    const former = typeof current === 'number' ? this.#state.owners.get(current) : undefined;
    const copy = this.#state.owners.get(to);
    this.#state.generations.set(storage, to);
    // A copy that was made after the last advance cannot be distinguished from its original.
    if (copy !== undefined && former !== undefined && former !== copy) {
      this.#state.excusedUntil.set(former, this.#state.now + LEASE);
      if (this.#state.key?.holder === storage) this.#state.giveUpFor(copy);
    }
    return 'ok';
  }
}
