import { WRITE_OVERHEAD_BYTES } from '../../commit-plan.ts';
import type { StoredDocument } from '../../port.ts';
import type { DocumentState } from '../../state.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { CommitQueue } from './commit-queue.ts';
import type { Unsealed } from './group-preparer.ts';

/** Sealed bytes of documents that one part re-seals, beyond the first of them. */
const RESEAL_BYTES_MAX = 4_194_304;

export interface ResealingOptions {
  readonly catalog: Catalog;
  readonly queue: CommitQueue;
  readonly get: (state: DocumentState) => Promise<StoredDocument | undefined>;
  readonly checkpoint: () => Promise<void>;
  /** The project is being moved away: nothing is written. */
  readonly isFenced: () => boolean;
  /** Key versions that catalog and log need, beside those of the documents. */
  readonly versions: ReadonlySet<number>;
}

/** Brings what a store has under the current version of its key. */
export class Resealing {
  readonly #options: ResealingOptions;
  #versions: ReadonlySet<number>;
  /**
   * Where in the catalog it continues; undefined once it is at the end. Writes since then are under the
   * current version.
   */
  #from: number | undefined = 0;

  constructor(options: ResealingOptions) {
    this.#options = options;
    this.#versions = options.versions;
  }

  /** At least 1 while the catalog or parts of the log are under another version: their turn is last. */
  get pending(): number {
    const isBehind = this.#versions.values().some((one) => one !== this.#version);
    return Math.max(this.#options.catalog.sealedUnderOthers(this.#version), isBehind ? 1 : 0);
  }

  /** A checkpoint has put catalog and log under the current version. */
  checkpointed(): void {
    this.#versions = new Set([this.#version]);
  }

  /** @returns how many documents were sealed again; 0 once all have been looked at. */
  async run(limit: number): Promise<number> {
    const { catalog, queue, get, isFenced } = this.#options;
    if (isFenced()) return 0;
    if (this.#from === undefined) {
      await this.#checkpoint();
      return 0;
    }
    const limits = { limit, bytesMax: RESEAL_BYTES_MAX };
    const { states, next } = catalog.someUnderOthers(this.#version, this.#from, limits);
    const reseals: Unsealed[] = [];
    for (const state of states) {
      // A document that does not open stays as it is: reading it reports the damage.
      const document = await get(state).catch(() => undefined);
      if (document?.metadata._rev === state.rev.toString('hex')) reseals.push({ state, text: document.text });
    }
    const bytes = reseals.reduce((sum, { text }) => sum + text.length + WRITE_OVERHEAD_BYTES, 0);
    if (isFenced()) return 0;
    if (reseals.length > 0) await queue.enqueue({ writes: [], reseals, options: {}, bytes });
    this.#from = next;
    if (next === undefined) await this.#checkpoint();
    return reseals.length;
  }

  /** Once no document is under a former key version, a checkpoint frees catalog and log from them, too. */
  async #checkpoint(): Promise<void> {
    const documents = this.#options.catalog.sealedUnderOthers(this.#version);
    if (documents === 0 && this.pending > 0) await this.#options.checkpoint();
  }

  get #version(): number {
    return this.#options.queue.keys.version;
  }
}
