import type { Clock } from '@bundoc/shared/runtime/clock';
import { WRITE_OVERHEAD_BYTES } from '../../commit/commit-plan.ts';
import type { Resealed, StoredDocument } from '../../port/port.ts';
import type { DocumentState } from '../../port/state.ts';
import { ResealPasses } from '../../reseal-passes.ts';
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
  readonly clock: Pick<Clock, 'monotonic'>;
}

const NOTHING: Resealed = { resealed: 0, skipped: 0, goesOn: false };

/** Re-seals everything in a store under the current version of its key. */
export class Resealing {
  readonly #options: ResealingOptions;
  #versions: ReadonlySet<number>;
  /** Passes over the slots of the catalog. Later writes are under the current version. */
  readonly #passes: ResealPasses<number>;

  constructor(options: ResealingOptions) {
    this.#options = options;
    this.#versions = options.versions;
    this.#passes = new ResealPasses(options.clock, 0);
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

  async run(limit: number): Promise<Resealed> {
    const { catalog, queue, isFenced } = this.#options;
    if (isFenced()) return NOTHING;
    const { from } = this.#passes;
    if (from === undefined) {
      await this.#checkpoint();
      return NOTHING;
    }
    const limits = { limit, bytesMax: RESEAL_BYTES_MAX };
    const { states, next } = catalog.someUnderOthers(this.#version, from, limits);
    const { reseals, failures } = await this.#read(states);
    const bytes = reseals.reduce((sum, { text }) => sum + text.length + WRITE_OVERHEAD_BYTES, 0);
    if (isFenced()) return NOTHING;
    if (reseals.length > 0) await queue.enqueue({ writes: [], reseals, options: {}, bytes });
    this.#passes.stepped(next, failures.length);
    if (next === undefined) await this.#checkpoint();
    const skipped = { skipped: failures.length, cause: failures[0] };
    return { resealed: reseals.length, ...skipped, goesOn: next !== undefined };
  }

  /** Reads documents that have not changed since. An unreadable one stays unchanged. */
  async #read(states: readonly DocumentState[]): Promise<{ reseals: Unsealed[]; failures: unknown[] }> {
    const reseals: Unsealed[] = [];
    const failures: unknown[] = [];
    for (const state of states)
      try {
        const document = await this.#options.get(state);
        if (document?.metadata._rev === state.rev.toString('hex'))
          reseals.push({ state, text: document.text });
      } catch (error) {
        failures.push(error);
      }
    return { reseals, failures };
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
