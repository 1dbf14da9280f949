import { WRITE_OVERHEAD_BYTES } from '../../commit-plan.ts';
import type { StoredDocument } from '../../port.ts';
import type { DocumentState } from '../../state.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { CommitQueue } from './commit-queue.ts';
import type { Unsealed } from './group-preparer.ts';

/** Sealed bytes after which one part re-seals no further document. */
const RESEAL_BYTES_MAX = 4_194_304;

export interface ResealingOptions {
  readonly catalog: Catalog;
  readonly queue: CommitQueue;
  readonly get: (state: DocumentState) => Promise<StoredDocument | undefined>;
  readonly checkpoint: () => Promise<void>;
  /** The project is being moved away, so nothing may be written. */
  readonly isFenced: () => boolean;
  /** Key versions that seal the catalog and the log, besides those of the documents. */
  readonly versions: ReadonlySet<number>;
}

/** Re-seals everything in a store under the current version of its key. */
export class Resealing {
  readonly #options: ResealingOptions;
  #versions: ReadonlySet<number>;
  /** The next slot in the catalog; undefined at the end. Later writes are under the current version. */
  #from: number | undefined = 0;

  constructor(options: ResealingOptions) {
    this.#options = options;
    this.#versions = options.versions;
  }

  /** At least 1 while the catalog or parts of the log are under another version: they are re-sealed last. */
  get pending(): number {
    const isBehind = this.#versions.values().some((one) => one !== this.#version);
    return Math.max(this.#options.catalog.sealedUnderOthers(this.#version), isBehind ? 1 : 0);
  }

  /** Called when a checkpoint has put catalog and log under the current version. */
  checkpointed(): void {
    this.#versions = new Set([this.#version]);
  }

  /**
   * @returns the number of re-sealed documents; 0 without a readable one on the page, and once all were
   *   visited.
   */
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
      // An undecryptable document stays unchanged: reading it reports the damage.
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

  /** Once no document is under an earlier key version, a checkpoint re-seals catalog and log, too. */
  async #checkpoint(): Promise<void> {
    const documents = this.#options.catalog.sealedUnderOthers(this.#version);
    if (documents === 0 && this.pending > 0) await this.#options.checkpoint();
  }

  get #version(): number {
    return this.#options.queue.keys.version;
  }
}
