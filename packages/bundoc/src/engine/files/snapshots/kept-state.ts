import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { MemoryIndex } from '../../indexes/memory-index.ts';
import type { ListedPlace } from '../catalog/catalog.ts';

/** Memory of a kept state besides its sealed bytes and keys, and of each key besides its characters. */
const STATE_BYTES = 1_200;
const KEY_BYTES = 180;

export interface SupersededState {
  readonly place: ListedPlace;
  /** Position of the commit that superseded it. */
  readonly until: number;
  /** Its sealed bytes, if they are in memory; the state owns them. */
  readonly sealed: Buffer | undefined;
  /** Its keys in the indexes that were ready, with its position. */
  readonly keys: ReadonlyMap<MemoryIndex, readonly string[]>;
}

/**
 * A superseded state of a document that snapshots still show: those as of a commit from `place.seq` to before
 * `until`.
 */
export class KeptState {
  readonly place: ListedPlace;
  readonly until: number;
  readonly keys: ReadonlyMap<MemoryIndex, readonly string[]>;
  /** Its memory, bytes; also while its sealed bytes are not read yet. */
  readonly bytes: number;
  readonly #readFile: () => Promise<Buffer | undefined>;
  #sealed: Buffer | undefined;
  #reading: Promise<Buffer | undefined> | undefined;
  #isFreed = false;

  /** @param readFile reads the document's file, which has this state until the file is written again. */
  constructor({ place, until, sealed, keys }: SupersededState, readFile: () => Promise<Buffer | undefined>) {
    this.place = { ...place, kept: this };
    this.until = until;
    this.keys = keys;
    this.#sealed = sealed;
    this.#readFile = readFile;
    let bytes = STATE_BYTES + place.size;
    for (const placed of keys.values()) for (const key of placed) bytes += KEY_BYTES + key.length;
    this.bytes = bytes;
  }

  /** Whether it is the document's state as of a commit. */
  isAt(position: number): boolean {
    return this.place.seq <= position && position < this.until;
  }

  /** Its sealed bytes, if they are in memory. */
  get sealed(): Buffer | undefined {
    return this.#sealed;
  }

  /** Its sealed bytes. They are read from the file once, before the file is written again. */
  read(): Promise<Buffer | undefined> {
    this.#reading ??= this.#sealed === undefined ? this.#load() : Promise.resolve(this.#sealed);
    return this.#reading;
  }

  async #load(): Promise<Buffer | undefined> {
    const sealed = await this.#readFile();
    if (!this.#isFreed) this.#sealed = sealed;
    return sealed;
  }

  /** Nothing shows it any longer. */
  free(): void {
    this.#isFreed = true;
    if (this.#sealed !== undefined) freeMemory(this.#sealed);
    this.#sealed = undefined;
  }
}
