import type { DocumentRef } from '../../cipher/stored-text.ts';
import type { ByteWriter } from './bytes.ts';
import { type DocumentState, FILE_NAME_BYTES, REV_BYTES, writeStateOf } from './record.ts';
import { SeqIndex } from './seq-index.ts';

/** Bytes of memory that a document or tombstone takes beside its id. */
const DOCUMENT_BYTES = 165;

/** Most projects of many are small. */
const ROOM_AT_FIRST = 4;

interface Collection {
  readonly name: string;
  readonly slots: Map<string, number>;
  /** Living documents in the order of their creation. */
  order: SeqIndex;
  alive: number;
  bytes: number;
}

export interface CollectionSummary {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
}

/** Names and revisions in hex. */
export interface LivingDocument {
  readonly fileName: string;
  readonly rev: string;
  readonly seq: number;
  readonly keyVersion: number;
  /** Bytes of the sealed file. */
  readonly size: number;
}

/** A living document in the order of a collection. */
export interface ListedPlace extends LivingDocument, DocumentRef {
  readonly createdSeq: number;
}

/**
 * What a project holds, in memory: for each document and each tombstone its id, file name, revision, key
 * version, size and place in the order. Columns of numbers rather than objects: about 165 bytes a document
 * beside its id, the map from it included (measured with a million).
 *
 * States may be applied twice and, while loading, in any order: the one with the higher `seq` wins.
 */
export class Catalog {
  readonly #collections: Collection[] = [];
  readonly #byName = new Map<string, number>();
  readonly #freeSlots: number[] = [];
  /** Living documents by the key version that sealed them. */
  readonly #byKeyVersion = new Map<number, number>();
  #changes: SeqIndex;
  #loading = true;
  #lastSeq = 0;
  #purgedSeq = 0;
  #used = 0;
  #idsLength = 0;

  #ids: string[] = [];
  #collectionOf = new Uint32Array(ROOM_AT_FIRST);
  #fileNames: Buffer = Buffer.alloc(ROOM_AT_FIRST * FILE_NAME_BYTES);
  #revs: Buffer = Buffer.alloc(ROOM_AT_FIRST * REV_BYTES);
  #seqs = new Float64Array(ROOM_AT_FIRST);
  #createdSeqs = new Float64Array(ROOM_AT_FIRST);
  #createdMs = new Float64Array(ROOM_AT_FIRST);
  #deletedMs = new Float64Array(ROOM_AT_FIRST);
  #sizes = new Uint32Array(ROOM_AT_FIRST);
  #keyVersions = new Uint32Array(ROOM_AT_FIRST);

  constructor() {
    this.#changes = new SeqIndex(this.#isLastChange);
  }

  /** The highest sequence number that was applied. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Tombstones up to here may be forgotten: a change feed cannot go on from before it. */
  get purgedSeq(): number {
    return this.#purgedSeq;
  }

  /** Takes over what a snapshot says. */
  restore(lastSeq: number, purgedSeq: number): void {
    this.#lastSeq = lastSeq;
    this.#purgedSeq = purgedSeq;
  }

  /** A document or its tombstone; undefined when there never was one, or it is forgotten. */
  get(ref: DocumentRef): DocumentState | undefined {
    const collection = this.#collection(ref.collection);
    const slot = collection?.slots.get(ref.id);
    return slot === undefined ? undefined : this.#state(slot);
  }

  /** What a read must know of a document; undefined when it does not live. */
  living(ref: DocumentRef): LivingDocument | undefined {
    const slot = this.#collection(ref.collection)?.slots.get(ref.id);
    if (slot === undefined || this.#deletedMs[slot] !== 0) return undefined;
    return {
      fileName: this.#fileNameOf(slot),
      rev: this.#revOf(slot),
      seq: this.#seqs[slot] as number,
      keyVersion: this.#keyVersions[slot] as number,
      size: this.#sizes[slot] as number,
    };
  }

  /** Makes `state` the document's, unless a later one is known. */
  apply(state: DocumentState): void {
    this.#lastSeq = Math.max(this.#lastSeq, state.seq);
    const at = this.#collectionAt(state.collection);
    const collection = this.#collections[at] as Collection;
    const known = collection.slots.get(state.id);
    if (known !== undefined && (this.#seqs[known] as number) >= state.seq) {
      this.#applyReseal(known, collection, state);
      return;
    }
    const slot = known ?? this.#takeSlot(state.id, at, collection);
    const wasAlive = known !== undefined && this.#deletedMs[slot] === 0;
    const isAlive = state.deletedMs === 0;
    if (wasAlive) this.#count(this.#keyVersions[slot] as number, -1);
    if (isAlive) this.#count(state.keyVersion, 1);
    const isNewInOrder = isAlive && (!wasAlive || this.#createdSeqs[slot] !== state.createdSeq);
    collection.alive += Number(isAlive) - Number(wasAlive);
    collection.bytes += (isAlive ? state.size : 0) - (wasAlive ? (this.#sizes[slot] as number) : 0);
    state.fileName.copy(this.#fileNames, slot * FILE_NAME_BYTES);
    state.rev.copy(this.#revs, slot * REV_BYTES);
    this.#seqs[slot] = state.seq;
    this.#createdSeqs[slot] = state.createdSeq;
    this.#createdMs[slot] = state.createdMs;
    this.#deletedMs[slot] = state.deletedMs;
    this.#sizes[slot] = state.size;
    this.#keyVersions[slot] = state.keyVersion;
    if (this.#loading) return;
    this.#changes.push(state.seq, slot);
    if (known !== undefined) this.#changes.entryDied();
    if (isNewInOrder) collection.order.push(state.createdSeq, slot);
    if (wasAlive && (!isAlive || isNewInOrder)) collection.order.entryDied();
  }

  /** The same state of a document, sealed under a later key version: it takes no new place in any order. */
  #applyReseal(slot: number, collection: Collection, state: DocumentState): void {
    const isSameState = this.#seqs[slot] === state.seq && this.#deletedMs[slot] === 0;
    if (!isSameState || state.keyVersion <= (this.#keyVersions[slot] as number)) return;
    this.#count(this.#keyVersions[slot] as number, -1);
    this.#count(state.keyVersion, 1);
    collection.bytes += state.size - (this.#sizes[slot] as number);
    this.#sizes[slot] = state.size;
    this.#keyVersions[slot] = state.keyVersion;
  }

  #count(keyVersion: number, change: number): void {
    this.#byKeyVersion.set(keyVersion, (this.#byKeyVersion.get(keyVersion) ?? 0) + change);
  }

  /** Living documents that are sealed under another key version. */
  sealedUnderOthers(keyVersion: number): number {
    let sum = 0;
    for (const [version, count] of this.#byKeyVersion) if (version !== keyVersion) sum += count;
    return sum;
  }

  /** Some of those, from a place on; at least one if there is any. `next` is undefined at the end. */
  someUnderOthers(
    keyVersion: number,
    from: number,
    { limit, bytesMax }: { readonly limit: number; readonly bytesMax: number },
  ): { states: DocumentState[]; next: number | undefined } {
    const states: DocumentState[] = [];
    let bytes = 0;
    let slot = from;
    for (; slot < this.#used && states.length < limit && bytes < bytesMax; slot++) {
      const isAlive = this.#seqs[slot] !== 0 && this.#deletedMs[slot] === 0;
      if (!isAlive || this.#keyVersions[slot] === keyVersion) continue;
      states.push(this.#state(slot));
      bytes += this.#sizes[slot] as number;
    }
    return { states, next: slot < this.#used ? slot : undefined };
  }

  /** Ends loading: from here on states come in the order of their `seq`, and the orders can be asked for. */
  finishLoading(): void {
    this.#loading = false;
    const all = [...this.#slots()];
    this.#changes = this.#indexOf(all, this.#seqs, this.#isLastChange);
    for (const [at, collection] of this.#collections.entries()) {
      const alive = all.filter((slot) => this.#collectionOf[slot] === at && this.#deletedMs[slot] === 0);
      collection.order = this.#indexOf(alive, this.#createdSeqs, this.#isInOrder);
    }
  }

  /** Living documents of a collection behind `createdSeq`, in the order of their creation. */
  *list(collection: string, afterCreatedSeq: number): Generator<ListedPlace> {
    for (const slot of this.#collection(collection)?.order.after(afterCreatedSeq) ?? [])
      yield {
        collection,
        id: this.#ids[slot] as string,
        fileName: this.#fileNameOf(slot),
        rev: this.#revOf(slot),
        seq: this.#seqs[slot] as number,
        createdSeq: this.#createdSeqs[slot] as number,
        keyVersion: this.#keyVersions[slot] as number,
        size: this.#sizes[slot] as number,
      };
  }

  /** Each document and tombstone that changed behind `seq`, at its last change, in that order. */
  *changes(afterSeq: number): Generator<DocumentState> {
    for (const slot of this.#changes.after(afterSeq)) yield this.#state(slot);
  }

  /** Everything, in no order. */
  *states(): Generator<DocumentState> {
    for (const slot of this.#slots()) yield this.#state(slot);
  }

  /**
   * Writes states, in no order, until the writer has `bytesMax`: for snapshots. States may be applied between
   * two calls; those may or may not be seen.
   *
   * @param from where to begin: 0, or what the last call returned.
   * @returns undefined when there are no more.
   */
  writeStates(
    writer: ByteWriter,
    from: number,
    bytesMax: number,
    begin: (writer: ByteWriter) => void,
  ): number | undefined {
    let slot = from;
    for (; slot < this.#used && writer.length < bytesMax; slot++) {
      if (this.#seqs[slot] === 0) continue;
      begin(writer);
      writeStateOf(
        writer,
        this.#partsOf(slot),
        { bytes: this.#fileNames, at: slot * FILE_NAME_BYTES },
        { bytes: this.#revs, at: slot * REV_BYTES },
      );
    }
    return slot < this.#used ? slot : undefined;
  }

  /** Documents and tombstones. */
  get size(): number {
    return this.#used - this.#freeSlots.length;
  }

  /** Bytes of memory, as an estimate. */
  get memoryBytes(): number {
    return this.#used * DOCUMENT_BYTES + this.#idsLength;
  }

  /** Collections that hold a document. */
  collections(): CollectionSummary[] {
    return this.#collections
      .filter(({ alive }) => alive > 0)
      .map(({ name, alive, bytes }) => ({ name, documents: alive, bytes }));
  }

  /** Forgets tombstones from before `beforeMs`. @returns how many. */
  purge(beforeMs: number): number {
    let purged = 0;
    for (const slot of [...this.#slots()]) {
      const deletedMs = this.#deletedMs[slot] as number;
      if (deletedMs === 0 || deletedMs >= beforeMs) continue;
      const seq = this.#seqs[slot] as number;
      this.#purgedSeq = Math.max(this.#purgedSeq, seq);
      this.#collections[this.#collectionOf[slot] as number]?.slots.delete(this.#ids[slot] as string);
      this.#idsLength -= (this.#ids[slot] as string).length;
      this.#ids[slot] = '';
      this.#seqs[slot] = 0;
      this.#freeSlots.push(slot);
      this.#changes.entryDied();
      purged++;
    }
    return purged;
  }

  readonly #isLastChange = (seq: number, slot: number): boolean => this.#seqs[slot] === seq;
  readonly #isInOrder = (seq: number, slot: number): boolean =>
    this.#createdSeqs[slot] === seq && this.#deletedMs[slot] === 0;

  *#slots(): Generator<number> {
    for (let slot = 0; slot < this.#used; slot++) if (this.#seqs[slot] !== 0) yield slot;
  }

  #fileNameOf(slot: number): string {
    const at = slot * FILE_NAME_BYTES;
    return this.#fileNames.toString('hex', at, at + FILE_NAME_BYTES);
  }

  #revOf(slot: number): string {
    const at = slot * REV_BYTES;
    return this.#revs.toString('hex', at, at + REV_BYTES);
  }

  #state(slot: number): DocumentState {
    const name = slot * FILE_NAME_BYTES;
    const rev = slot * REV_BYTES;
    return {
      ...this.#partsOf(slot),
      fileName: Buffer.from(this.#fileNames.subarray(name, name + FILE_NAME_BYTES)),
      rev: Buffer.from(this.#revs.subarray(rev, rev + REV_BYTES)),
    };
  }

  #partsOf(slot: number): Omit<DocumentState, 'fileName' | 'rev'> {
    return {
      collection: (this.#collections[this.#collectionOf[slot] as number] as Collection).name,
      id: this.#ids[slot] as string,
      seq: this.#seqs[slot] as number,
      createdSeq: this.#createdSeqs[slot] as number,
      createdMs: this.#createdMs[slot] as number,
      keyVersion: this.#keyVersions[slot] as number,
      size: this.#sizes[slot] as number,
      deletedMs: this.#deletedMs[slot] as number,
    };
  }

  #collection(name: string): Collection | undefined {
    const at = this.#byName.get(name);
    return at === undefined ? undefined : this.#collections[at];
  }

  #collectionAt(name: string): number {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const at = this.#collections.length;
    this.#collections.push({
      name,
      slots: new Map(),
      order: new SeqIndex(this.#isInOrder),
      alive: 0,
      bytes: 0,
    });
    this.#byName.set(name, at);
    return at;
  }

  #takeSlot(idOfCaller: string, collectionAt: number, collection: Collection): number {
    const id = ownCopy(idOfCaller);
    const slot = this.#freeSlots.pop() ?? this.#used++;
    if (slot >= this.#seqs.length) this.#grow();
    this.#ids[slot] = id;
    this.#idsLength += id.length;
    this.#collectionOf[slot] = collectionAt;
    this.#deletedMs[slot] = 1; // Not alive until its state is set.
    collection.slots.set(id, slot);
    return slot;
  }

  #indexOf(
    slots: readonly number[],
    column: Float64Array,
    holds: (seq: number, slot: number) => boolean,
  ): SeqIndex {
    const seqs = Float64Array.from(slots, (slot) => column[slot] as number);
    return SeqIndex.sorted(holds, { seqs, slots: Uint32Array.from(slots) });
  }

  #grow(): void {
    const capacity = Math.ceil(Math.max(this.#seqs.length * 1.5, 16));
    const longer = <T extends Float64Array | Uint32Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#seqs = longer(this.#seqs, new Float64Array(capacity));
    this.#createdSeqs = longer(this.#createdSeqs, new Float64Array(capacity));
    this.#createdMs = longer(this.#createdMs, new Float64Array(capacity));
    this.#deletedMs = longer(this.#deletedMs, new Float64Array(capacity));
    this.#collectionOf = longer(this.#collectionOf, new Uint32Array(capacity));
    this.#sizes = longer(this.#sizes, new Uint32Array(capacity));
    this.#keyVersions = longer(this.#keyVersions, new Uint32Array(capacity));
    this.#fileNames = Buffer.concat([this.#fileNames], capacity * FILE_NAME_BYTES);
    this.#revs = Buffer.concat([this.#revs], capacity * REV_BYTES);
  }
}

const copyRoom = Buffer.alloc(1_536);

/**
 * The same text in memory of its own: one that was cut out of a request's path would keep the whole path in
 * memory, and one that was put together its pieces. Ids have 512 bytes at most; one that does not fit stays
 * as it is.
 */
function ownCopy(text: string): string {
  const bytes = copyRoom.write(text);
  const copy = copyRoom.toString('utf8', 0, bytes);
  return copy.length === text.length ? copy : text;
}
