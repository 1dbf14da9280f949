import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import {
  ArchiveDamaged,
  type DecodedObject,
  decodeHead,
  decodeObject,
  HEAD_BYTES,
  OBJECT_BYTES_MAX,
  type ObjectHead,
  type ObjectId,
  objectKey,
  objectName,
  parseObjectName,
  storagePrefix,
} from './object.ts';

/** The lowest number of an object of a storage that is not below one; undefined for none. */
export async function numberFrom(
  storage: ObjectStorage,
  storageId: Buffer,
  n: number,
): Promise<number | undefined> {
  const after = objectKey(storageId, { n: n - 1, epoch: 'f'.repeat(32) });
  for await (const { key } of storage.list(storagePrefix(storageId), after)) {
    const id = parseObjectName(nameOf(key));
    if (id !== undefined) return id.n;
  }
  return undefined;
}

/** The highest number of an object of a storage; 0 for none. Asks for a few dozen lists. */
export async function highestN(storage: ObjectStorage, storageId: Buffer): Promise<number> {
  const isAnyAfter = async (n: number) => (await numberFrom(storage, storageId, n + 1)) !== undefined;
  if (!(await isAnyAfter(0))) return 0;
  let below = 1;
  while (await isAnyAfter(2 * below)) below *= 2;
  // There is one after `below`, or it is the last; there is none after `above`.
  let above = 2 * below;
  below -= 1;
  while (above - below > 1) {
    const middle = Math.floor((below + above) / 2);
    if (await isAnyAfter(middle)) below = middle;
    else above = middle;
  }
  return above;
}

function nameOf(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1);
}

/** An object as a list shows it. */
export interface ListedObject {
  readonly id: ObjectId;
  readonly bytes: number;
}

/** The objects that one process has written. */
interface Epoch {
  readonly epoch: string;
  first: number;
  last: number;
  bytes: number;
  /** Numbers between that are missing. */
  readonly gaps: number[];
}

/** The objects of a chain, from its root or the first that is still there up to its end. */
export interface Chain {
  /** Parts of epochs, in order. */
  readonly parts: readonly { readonly epoch: string; readonly first: number; readonly last: number }[];
  /** Numbers of objects that are missing. */
  readonly missing: readonly number[];
  /** The last object. */
  readonly tip: ObjectHead;
  /** Bytes of all objects. */
  readonly bytes: number;
  /** Whether objects before its first one are gone, as after a prune. */
  readonly isPruned: boolean;
}

export function firstOf({ parts }: Chain): number {
  return parts[0]?.first ?? 0;
}

/** An object whose head cannot be read. */
export interface DamagedObject {
  readonly id: ObjectId;
  readonly error: ArchiveDamaged;
}

/** Where an object of a chain is. */
export function idIn({ parts }: Chain, n: number): ObjectId | undefined {
  const part = parts.find(({ first, last }) => n >= first && n <= last);
  return part && { epoch: part.epoch, n };
}

/** Reads the objects of one storage. Everything that it returns was checked. */
export class ArchiveReader {
  readonly #storage: ObjectStorage;
  readonly #storageId: Buffer;
  #damaged: DamagedObject[] = [];

  /** @param storageId 16 bytes. */
  constructor(storage: ObjectStorage, storageId: Buffer) {
    this.#storage = storage;
    this.#storageId = storageId;
  }

  /**
   * All chains, the newest first: that of the last take-over, of those that which was begun last, and of its
   * branches the one with the latest time. A machine that was taken over may still ship.
   *
   * A chain ends before a last object that is damaged. Without the first object of a process, the chain of
   * that process begins there, and the one before it ends.
   *
   * @throws ArchiveDamaged when no object can be read; ObjectStorageError.
   */
  async chains(): Promise<readonly Chain[]> {
    this.#damaged = [];
    const epochs = await this.#epochs();
    const parents = new Map<string, ObjectId | undefined>();
    for (const known of epochs.values()) {
      const head = await this.#firstReadable(known, known.first, 1);
      if (head === undefined) epochs.delete(known.epoch);
      else {
        known.first = head.n;
        parents.set(known.epoch, head.before);
      }
    }
    const isContinued = new Set([...parents.values()].map((before) => before && objectName(before)));
    const tips = [...epochs.values()].filter((one) => !isContinued.has(objectName({ ...one, n: one.last })));
    const chains: Chain[] = [];
    for (const known of tips) {
      const tip = await this.#firstReadable(known, known.last, -1);
      if (tip !== undefined) chains.push(chainTo(tip, epochs, parents));
    }
    const [damaged] = this.#damaged;
    if (chains.length === 0 && damaged !== undefined) throw damaged.error;
    return chains.sort(
      (a, b) =>
        b.tip.takenOverMs - a.tip.takenOverMs ||
        firstOf(b) - firstOf(a) ||
        b.tip.timeMs - a.tip.timeMs ||
        b.tip.n - a.tip.n ||
        (a.tip.epoch < b.tip.epoch ? -1 : 1),
    );
  }

  /** Objects that {@link chains} could not read. */
  get damaged(): readonly DamagedObject[] {
    return this.#damaged;
  }

  /** The first head from `n` on that can be read, in steps of 1 or -1; the others are noted. */
  async #firstReadable({ epoch, first, last, gaps }: Epoch, from: number, step: 1 | -1) {
    for (let n = from; n >= first && n <= last; n += step) {
      if (gaps.includes(n)) continue;
      try {
        return await this.head({ epoch, n });
      } catch (error) {
        if (!(error instanceof ArchiveDamaged)) throw error;
        this.#damaged.push({ id: { epoch, n }, error });
      }
    }
    return undefined;
  }

  /** All objects in the order of their numbers, also those of no chain. */
  async *listed(): AsyncGenerator<ListedObject> {
    for await (const { key, bytes } of this.#storage.list(storagePrefix(this.#storageId))) {
      const id = parseObjectName(nameOf(key));
      if (id !== undefined) yield { id, bytes };
    }
  }

  async #epochs(): Promise<Map<string, Epoch>> {
    const epochs = new Map<string, Epoch>();
    for await (const { id, bytes } of this.listed()) {
      const known = epochs.get(id.epoch);
      if (known === undefined) {
        epochs.set(id.epoch, { epoch: id.epoch, first: id.n, last: id.n, bytes, gaps: [] });
        continue;
      }
      for (let n = known.last + 1; n < id.n && known.gaps.length < GAPS_MAX; n++) known.gaps.push(n);
      known.last = id.n;
      known.bytes += bytes;
    }
    return epochs;
  }

  /** @throws ArchiveDamaged; ObjectStorageError. */
  async head(id: ObjectId): Promise<ObjectHead> {
    const range = { at: 0, bytes: HEAD_BYTES };
    const bytes = await this.#storage.get(objectKey(this.#storageId, id), { range, maxBytes: HEAD_BYTES });
    if (bytes === undefined) throw missing(id);
    return decodeHead(bytes, this.#storageId, id);
  }

  /** @throws ArchiveDamaged; ObjectStorageError. */
  async object(id: ObjectId): Promise<DecodedObject> {
    const key = objectKey(this.#storageId, id);
    const bytes = await this.#storage.get(key, { maxBytes: OBJECT_BYTES_MAX });
    if (bytes === undefined) throw missing(id);
    return decodeObject(bytes, this.#storageId, id);
  }

  /**
   * Objects of a chain in order, each checked against the next one's hash.
   *
   * @throws ArchiveDamaged; ObjectStorageError.
   */
  async *objects(chain: Chain, first: number, last: number): AsyncGenerator<DecodedObject> {
    let before: DecodedObject | undefined;
    for (let n = first; n <= last; n++) {
      const id = idIn(chain, n);
      if (id === undefined) throw new ArchiveDamaged(`object ${n} is missing`);
      const object = await this.object(id);
      requireNext(before, object);
      yield object;
      before = object;
    }
  }
}

/** Gaps that are counted for each epoch. */
const GAPS_MAX = 1_000;

function missing(id: ObjectId): ArchiveDamaged {
  return new ArchiveDamaged(`${objectName(id)} is missing`);
}

/** @throws ArchiveDamaged when an object does not follow the one before, if there is one. */
export function requireNext(before: DecodedObject | undefined, { head }: DecodedObject): void {
  if (before === undefined) return;
  const isNext =
    head.before?.epoch === before.head.epoch &&
    head.before.n === before.head.n &&
    head.before.hash.equals(before.hash) &&
    head.timeMs >= before.head.timeMs;
  if (!isNext) throw new ArchiveDamaged(`${objectName(head)} does not follow ${objectName(before.head)}`);
}

function chainTo(
  tip: ObjectHead,
  epochs: ReadonlyMap<string, Epoch>,
  parents: ReadonlyMap<string, ObjectId | undefined>,
): Chain {
  const parts: { epoch: string; first: number; last: number }[] = [];
  const gone: number[] = [];
  let bytes = 0;
  let id: ObjectId | undefined = tip;
  while (id !== undefined) {
    const known: Epoch | undefined = epochs.get(id.epoch);
    if (known === undefined || known.first > id.n) break;
    const { epoch, first, gaps } = known;
    const last = id.n;
    parts.unshift({ epoch, first, last });
    gone.unshift(...gaps.filter((n) => n < last));
    for (let n = known.last + 1; n <= last && gone.length < GAPS_MAX; n++) gone.push(n);
    bytes += known.bytes;
    id = parents.get(epoch);
  }
  return { parts, missing: gone, tip, bytes, isPruned: id !== undefined };
}
