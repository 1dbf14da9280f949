import type { DocumentRef } from '../../../crypto/stored-text.ts';
import type { Usage } from '../../commit/quota.ts';
import type { ByteWriter } from '../../port/bytes.ts';
import type { CollectionSummary } from '../../port/port.ts';
import { type DocumentState, FILE_NAME_BYTES, REV_BYTES, writeStateOf } from '../../port/state.ts';
import { SeqIndex } from './seq-index.ts';
import { sortedPlaces } from './sorted-places.ts';

/** Bytes of memory for a document or tombstone without its id. */
const DOCUMENT_BYTES = 165;
/** Bytes of memory for a collection and its name without its documents (measured with 100,000). */
const COLLECTION_BYTES = 900;
/** Bytes of a document or tombstone in a snapshot without the texts of its names. */
const SNAPSHOT_STATE_BYTES = 65;
/** Documents that loading takes in one step. */
const STEP = 2_048;
/** Tombstones that a purge forgets in one step. */
const PURGE_STEP = 512;

/** Most projects are small. */
const ROOM_AT_FIRST = 4;

// A row of the table: four numbers, three words, file name and revision. It spans two cache lines of the
// processor, so a read of one document in each of many projects waits for few of them.
const NUMBERS_IN_ROW = 9;
const SEQ = 0;
const CREATED_SEQ = 1;
const CREATED_MS = 2;
const DELETED_MS = 3;
const WORDS_IN_ROW = 2 * NUMBERS_IN_ROW;
const SIZE = 8;
const KEY_VERSION = 9;
const COLLECTION = 10;
const ROW_BYTES = 8 * NUMBERS_IN_ROW;
const FILE_NAME = 44;
const REV = FILE_NAME + FILE_NAME_BYTES;
const FILE_NAME_DIGITS = 2 * FILE_NAME_BYTES;

interface Collection {
  readonly name: string;
  /** Bytes of the name in a snapshot. */
  readonly nameBytes: number;
  readonly slots: Map<string, number>;
  /** Living documents in the order of creation. */
  readonly order: SeqIndex;
  alive: number;
  bytes: number;
  /** Position of the last change. */
  changed: number;
}

/** Bytes of a superseded state, which are not those of its file. */
export interface KeptBytes {
  /** Its sealed bytes, if they are in memory. */
  readonly sealed: Buffer | undefined;
  read(): Promise<Buffer | undefined>;
}

/** Names and revisions in hex. */
export interface LivingDocument {
  readonly fileName: string;
  readonly rev: string;
  readonly seq: number;
  readonly keyVersion: number;
  /** Bytes of the sealed file. */
  readonly size: number;
  /** Only of a superseded state. */
  readonly kept?: KeptBytes;
}

/** A living document in the order of its collection. */
export interface ListedPlace extends LivingDocument, DocumentRef {
  readonly createdSeq: number;
}

/**
 * The index of a project in memory. For each document and tombstone it has the id, file name, revision, key
 * version, size and place in the order. It is a table with rows rather than objects. A document takes about
 * 165 bytes with the map of ids, without the id itself (measured with a million).
 *
 * States may be applied twice and, while loading, in any order: the one with the higher `seq` wins.
 *
 * One class, because all that reads or writes the table knows its columns, and nothing else does.
 */
export class Catalog {
  /** Undefined where all tombstones of a collection without documents were forgotten. */
  readonly #collections: (Collection | undefined)[] = [];
  readonly #byName = new Map<string, number>();
  readonly #freeCollections: number[] = [];
  readonly #freeSlots: number[] = [];
  /** Living documents by the key version that sealed them. */
  readonly #byKeyVersion = new Map<number, number>();
  readonly #changes: SeqIndex;
  /** Tombstones in the order of their deletion. */
  readonly #tombstones: SeqIndex;
  #loading = true;
  #lastSeq = 0;
  #purgedSeq = 0;
  #used = 0;
  #idsLength = 0;
  /** Bytes of the names of all documents and tombstones in a snapshot. */
  #textBytes = 0;
  /** Living documents of all collections, and their sealed bytes. */
  #alive = 0;
  #aliveBytes = 0;

  #ids: string[] = [];
  /** The table, viewed as numbers, words and bytes. */
  #numbers = new Float64Array(ROOM_AT_FIRST * NUMBERS_IN_ROW);
  #words = new Uint32Array(this.#numbers.buffer);
  #bytes = Buffer.from(this.#numbers.buffer);

  constructor() {
    this.#changes = new SeqIndex(this.#isLastChange);
    this.#tombstones = new SeqIndex(this.#isTombstone);
  }

  /** The highest applied sequence number. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Tombstones up to here may be forgotten: a change feed cannot resume from an earlier position. */
  get purgedSeq(): number {
    return this.#purgedSeq;
  }

  /** Restores the counters of a snapshot. */
  restore(lastSeq: number, purgedSeq: number): void {
    this.#lastSeq = lastSeq;
    this.#purgedSeq = purgedSeq;
  }

  /** A document or its tombstone; undefined when it never existed or is forgotten. */
  get(ref: DocumentRef): DocumentState | undefined {
    const collection = this.#collection(ref.collection);
    const slot = collection?.slots.get(ref.id);
    return slot === undefined ? undefined : this.#state(slot);
  }

  /** What a read needs to know of a document; undefined when it does not exist. */
  living(ref: DocumentRef): LivingDocument | undefined {
    const slot = this.#collection(ref.collection)?.slots.get(ref.id);
    return slot === undefined || this.#number(slot, DELETED_MS) !== 0 ? undefined : this.#livingOf(slot);
  }

  /** Position of the last change of a living document. */
  seqOf(ref: DocumentRef): number | undefined {
    const slot = this.#collection(ref.collection)?.slots.get(ref.id);
    return slot === undefined || this.#number(slot, DELETED_MS) !== 0 ? undefined : this.#number(slot, SEQ);
  }

  /** A living document in the order of its collection. */
  placeOf(ref: DocumentRef): ListedPlace | undefined {
    const slot = this.#collection(ref.collection)?.slots.get(ref.id);
    return slot === undefined || this.#number(slot, DELETED_MS) !== 0
      ? undefined
      : this.#placeOf(ref.collection, slot);
  }

  /**
   * A position since which a collection has not changed: its last change, or that of a forgotten tombstone.
   */
  changedIn(collection: string): number {
    return Math.max(this.#collection(collection)?.changed ?? 0, this.#purgedSeq);
  }

  /** Sets the document's state, unless a later one is known. */
  apply(state: DocumentState): void {
    this.#lastSeq = Math.max(this.#lastSeq, state.seq);
    const at = this.#collectionAt(state.collection);
    const collection = this.#collections[at] as Collection;
    const known = collection.slots.get(state.id);
    if (known !== undefined && this.#number(known, SEQ) >= state.seq) {
      this.#applyReseal(known, collection, state);
      return;
    }
    collection.changed = Math.max(collection.changed, state.seq);
    const slot = known ?? this.#takeSlot(state.id, at, collection);
    const wasAlive = known !== undefined && this.#number(slot, DELETED_MS) === 0;
    const isAlive = state.deletedMs === 0;
    if (wasAlive) this.#count(this.#word(slot, KEY_VERSION), -1);
    if (isAlive) this.#count(state.keyVersion, 1);
    const isNewInOrder = isAlive && (!wasAlive || this.#number(slot, CREATED_SEQ) !== state.createdSeq);
    const moreBytes = (isAlive ? state.size : 0) - (wasAlive ? this.#word(slot, SIZE) : 0);
    this.#addUsage(collection, Number(isAlive) - Number(wasAlive), moreBytes);
    state.fileName.copy(this.#bytes, slot * ROW_BYTES + FILE_NAME);
    state.rev.copy(this.#bytes, slot * ROW_BYTES + REV);
    const numbers = slot * NUMBERS_IN_ROW;
    this.#numbers[numbers + SEQ] = state.seq;
    this.#numbers[numbers + CREATED_SEQ] = state.createdSeq;
    this.#numbers[numbers + CREATED_MS] = state.createdMs;
    this.#numbers[numbers + DELETED_MS] = state.deletedMs;
    this.#words[slot * WORDS_IN_ROW + SIZE] = state.size;
    this.#words[slot * WORDS_IN_ROW + KEY_VERSION] = state.keyVersion;
    if (this.#loading) return;
    this.#changes.push(state.seq, slot);
    if (known !== undefined) this.#changes.entryDied();
    if (!isAlive) this.#tombstones.push(state.seq, slot);
    if (known !== undefined && !wasAlive) this.#tombstones.entryDied();
    if (isNewInOrder) collection.order.push(state.createdSeq, slot);
    if (wasAlive && (!isAlive || isNewInOrder)) collection.order.entryDied();
  }

  /** The same state of a document, sealed under a later key version; it keeps its place in every order. */
  #applyReseal(slot: number, collection: Collection, state: DocumentState): void {
    const isSameState = this.#number(slot, SEQ) === state.seq && this.#number(slot, DELETED_MS) === 0;
    if (!isSameState || state.keyVersion <= this.#word(slot, KEY_VERSION)) return;
    this.#count(this.#word(slot, KEY_VERSION), -1);
    this.#count(state.keyVersion, 1);
    this.#addUsage(collection, 0, state.size - this.#word(slot, SIZE));
    this.#words[slot * WORDS_IN_ROW + SIZE] = state.size;
    this.#words[slot * WORDS_IN_ROW + KEY_VERSION] = state.keyVersion;
  }

  #addUsage(collection: Collection, documents: number, bytes: number): void {
    collection.alive += documents;
    collection.bytes += bytes;
    this.#alive += documents;
    this.#aliveBytes += bytes;
  }

  #count(keyVersion: number, change: number): void {
    this.#byKeyVersion.set(keyVersion, (this.#byKeyVersion.get(keyVersion) ?? 0) + change);
  }

  /** Number of living documents sealed under another key version. */
  sealedUnderOthers(keyVersion: number): number {
    let sum = 0;
    for (const [version, count] of this.#byKeyVersion) if (version !== keyVersion) sum += count;
    return sum;
  }

  /**
   * Some of those documents, starting from a slot; at least one if there is any. `next` is undefined at the
   * end.
   */
  someUnderOthers(
    keyVersion: number,
    from: number,
    { limit, bytesMax }: { readonly limit: number; readonly bytesMax: number },
  ): { states: DocumentState[]; next: number | undefined } {
    const states: DocumentState[] = [];
    let bytes = 0;
    let slot = from;
    for (; slot < this.#used && states.length < limit && bytes < bytesMax; slot++) {
      const isAlive = this.#number(slot, SEQ) !== 0 && this.#number(slot, DELETED_MS) === 0;
      if (!isAlive || this.#word(slot, KEY_VERSION) === keyVersion) continue;
      states.push(this.#state(slot));
      bytes += this.#word(slot, SIZE);
    }
    return { states, next: slot < this.#used ? slot : undefined };
  }

  /**
   * Ends loading, in steps; no state is applied meanwhile. From then on, states arrive in the order of their
   * `seq`, and the orders are available.
   */
  *finishLoading(): Generator<void> {
    yield* this.#visitInOrder(SEQ, (slot, seq) => {
      this.#changes.push(seq, slot);
      if (this.#number(slot, DELETED_MS) !== 0) this.#tombstones.push(seq, slot);
    });
    yield* this.#visitInOrder(CREATED_SEQ, (slot, createdSeq) => {
      if (this.#number(slot, DELETED_MS) === 0) this.#collectionOf(slot).order.push(createdSeq, slot);
    });
    this.#loading = false;
  }

  /** Visits each document and tombstone in the order of a column, in steps. */
  *#visitInOrder(column: number, visit: (slot: number, number: number) => void): Generator<void> {
    const slots = new Uint32Array(this.size);
    const numbers = new Float64Array(this.size);
    let length = 0;
    for (const slot of this.#slots()) {
      slots[length] = slot;
      numbers[length++] = this.#number(slot, column);
      if (length % STEP === 0) yield;
    }
    let visited = 0;
    for (const place of yield* sortedPlaces(numbers, STEP)) {
      visit(slots[place] as number, numbers[place] as number);
      if (++visited % STEP === 0) yield;
    }
  }

  /** Living documents of a collection after `createdSeq`, in the order of creation. */
  *list(collection: string, afterCreatedSeq: number): Generator<ListedPlace> {
    for (const slot of this.#collection(collection)?.order.after(afterCreatedSeq) ?? [])
      yield this.#placeOf(collection, slot);
  }

  /** Each document and tombstone that changed after `seq`, at its last change, in that order. */
  *changes(afterSeq: number): Generator<DocumentState> {
    for (const slot of this.#changes.after(afterSeq)) yield this.#state(slot);
  }

  /** All states, unordered. */
  *states(): Generator<DocumentState> {
    for (const slot of this.#slots()) yield this.#state(slot);
  }

  /**
   * Writes states for a snapshot, unordered, until the writer has `bytesMax`. States applied between two
   * calls may be included or not.
   *
   * @param from the first slot: 0, or the result of the last call.
   * @returns undefined at the end.
   */
  writeStates(
    writer: ByteWriter,
    from: number,
    bytesMax: number,
    begin: (writer: ByteWriter) => void,
  ): number | undefined {
    let slot = from;
    for (; slot < this.#used && writer.length < bytesMax; slot++) {
      if (this.#number(slot, SEQ) === 0) continue;
      begin(writer);
      writeStateOf(
        writer,
        this.#partsOf(slot),
        { bytes: this.#bytes, at: slot * ROW_BYTES + FILE_NAME },
        { bytes: this.#bytes, at: slot * ROW_BYTES + REV },
      );
    }
    return slot < this.#used ? slot : undefined;
  }

  /** Number of documents and tombstones. */
  get size(): number {
    return this.#used - this.#freeSlots.length;
  }

  /** Number of tombstones. */
  get tombstones(): number {
    return this.size - this.#alive;
  }

  /** Living documents, and their sealed bytes. */
  get usage(): Usage {
    return { documents: this.#alive, bytes: this.#aliveBytes };
  }

  /** Bytes of all documents and tombstones in a snapshot. */
  get snapshotBytes(): number {
    return this.size * SNAPSHOT_STATE_BYTES + this.#textBytes;
  }

  /** Estimated memory, bytes. */
  get memoryBytes(): number {
    return this.#used * DOCUMENT_BYTES + this.#idsLength + this.#byName.size * COLLECTION_BYTES;
  }

  /** Number of living documents in a collection. */
  documentsIn(collection: string): number {
    return this.#collection(collection)?.alive ?? 0;
  }

  /** Collections with at least one document. */
  collections(): CollectionSummary[] {
    const found: CollectionSummary[] = [];
    for (const collection of this.#collections)
      if (collection !== undefined && collection.alive > 0)
        found.push({ name: collection.name, documents: collection.alive, bytes: collection.bytes });
    return found;
  }

  /**
   * Forgets tombstones from before `beforeMs`, and those before the last `max`, in steps. Takes them in the
   * order of their deletion, and ends at the first that stays: nothing else is visited.
   *
   * @returns how many.
   */
  *purge(beforeMs: number, max: number): Generator<void, number> {
    let purged = 0;
    for (;;) {
      const slot = this.#tombstones.first();
      const isDue =
        slot !== undefined && (this.tombstones > max || this.#number(slot, DELETED_MS) < beforeMs);
      if (!isDue) return purged;
      this.#forget(slot);
      if (++purged % PURGE_STEP === 0) yield;
    }
  }

  #forget(slot: number): void {
    const id = this.#ids[slot] as string;
    this.#purgedSeq = Math.max(this.#purgedSeq, this.#number(slot, SEQ));
    this.#textBytes -= Buffer.byteLength(id) + this.#collectionOf(slot).nameBytes;
    this.#leaveCollection(slot, id);
    this.#idsLength -= id.length;
    this.#ids[slot] = '';
    this.#numbers[slot * NUMBERS_IN_ROW + SEQ] = 0;
    this.#freeSlots.push(slot);
    this.#changes.entryDied();
    this.#tombstones.entryDied();
  }

  readonly #isLastChange = (seq: number, slot: number): boolean => this.#number(slot, SEQ) === seq;
  readonly #isTombstone = (seq: number, slot: number): boolean =>
    this.#number(slot, SEQ) === seq && this.#number(slot, DELETED_MS) !== 0;
  readonly #isInOrder = (seq: number, slot: number): boolean =>
    this.#number(slot, CREATED_SEQ) === seq && this.#number(slot, DELETED_MS) === 0;

  *#slots(): Generator<number> {
    for (let slot = 0; slot < this.#used; slot++) if (this.#number(slot, SEQ) !== 0) yield slot;
  }

  #number(slot: number, column: number): number {
    return this.#numbers[slot * NUMBERS_IN_ROW + column] as number;
  }

  #word(slot: number, column: number): number {
    return this.#words[slot * WORDS_IN_ROW + column] as number;
  }

  #livingOf(slot: number): LivingDocument {
    const at = slot * ROW_BYTES;
    // One call for both: a call takes longer than the conversion.
    const digits = this.#bytes.toString('hex', at + FILE_NAME, at + ROW_BYTES);
    return {
      fileName: digits.slice(0, FILE_NAME_DIGITS),
      rev: digits.slice(FILE_NAME_DIGITS),
      seq: this.#number(slot, SEQ),
      keyVersion: this.#word(slot, KEY_VERSION),
      size: this.#word(slot, SIZE),
    };
  }

  #placeOf(collection: string, slot: number): ListedPlace {
    const { fileName, rev, seq, keyVersion, size } = this.#livingOf(slot);
    const id = this.#ids[slot] as string;
    const createdSeq = this.#number(slot, CREATED_SEQ);
    return { collection, id, fileName, rev, seq, createdSeq, keyVersion, size };
  }

  #state(slot: number): DocumentState {
    const name = slot * ROW_BYTES + FILE_NAME;
    const rev = slot * ROW_BYTES + REV;
    return {
      ...this.#partsOf(slot),
      fileName: Buffer.from(this.#bytes.subarray(name, name + FILE_NAME_BYTES)),
      rev: Buffer.from(this.#bytes.subarray(rev, rev + REV_BYTES)),
    };
  }

  #partsOf(slot: number): Omit<DocumentState, 'fileName' | 'rev'> {
    return {
      collection: this.#collectionOf(slot).name,
      id: this.#ids[slot] as string,
      seq: this.#number(slot, SEQ),
      createdSeq: this.#number(slot, CREATED_SEQ),
      createdMs: this.#number(slot, CREATED_MS),
      keyVersion: this.#word(slot, KEY_VERSION),
      size: this.#word(slot, SIZE),
      deletedMs: this.#number(slot, DELETED_MS),
    };
  }

  #collection(name: string): Collection | undefined {
    const at = this.#byName.get(name);
    return at === undefined ? undefined : this.#collections[at];
  }

  #collectionOf(slot: number): Collection {
    return this.#collections[this.#word(slot, COLLECTION)] as Collection;
  }

  #collectionAt(name: string): number {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const at = this.#freeCollections.pop() ?? this.#collections.length;
    const order = new SeqIndex(this.#isInOrder);
    const nameBytes = Buffer.byteLength(name);
    this.#collections[at] = { name, nameBytes, slots: new Map(), order, alive: 0, bytes: 0, changed: 0 };
    this.#byName.set(name, at);
    return at;
  }

  /** Forgets the id of a slot, and its collection with the last one. */
  #leaveCollection(slot: number, id: string): void {
    const { name, slots } = this.#collectionOf(slot);
    slots.delete(id);
    if (slots.size > 0) return;
    const at = this.#word(slot, COLLECTION);
    this.#collections[at] = undefined;
    this.#byName.delete(name);
    this.#freeCollections.push(at);
  }

  #takeSlot(idOfCaller: string, collectionAt: number, collection: Collection): number {
    const id = ownCopy(idOfCaller);
    const slot = this.#freeSlots.pop() ?? this.#used++;
    if (slot * ROW_BYTES === this.#bytes.length) this.#grow();
    this.#ids[slot] = id;
    this.#idsLength += id.length;
    this.#textBytes += Buffer.byteLength(id) + collection.nameBytes;
    this.#words[slot * WORDS_IN_ROW + COLLECTION] = collectionAt;
    this.#numbers[slot * NUMBERS_IN_ROW + DELETED_MS] = 1; // Not alive until its state is set.
    collection.slots.set(id, slot);
    return slot;
  }

  #grow(): void {
    const rows = Math.ceil(Math.max((this.#bytes.length / ROW_BYTES) * 1.5, 16));
    const longer = new Float64Array(rows * NUMBERS_IN_ROW);
    longer.set(this.#numbers);
    this.#numbers = longer;
    this.#words = new Uint32Array(longer.buffer);
    this.#bytes = Buffer.from(longer.buffer);
  }
}

const copyRoom = Buffer.alloc(1_536);

/**
 * Copies a text into separate memory. A substring of a request's path would keep the whole path in memory,
 * and a concatenated text its pieces. Ids have at most 512 bytes; a longer text is returned unchanged.
 */
function ownCopy(text: string): string {
  const bytes = copyRoom.write(text);
  const copy = copyRoom.toString('utf8', 0, bytes);
  return copy.length === text.length ? copy : text;
}
