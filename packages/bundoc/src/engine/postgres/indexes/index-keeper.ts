import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { DocumentContent } from '../../../crypto/stored-text.ts';
import type { Work } from '../../../work/work.ts';
import type { IndexKeys } from '../../indexes/index-keys.ts';
import { isOfOwnMembers, keysOfContent } from '../../indexes/prepared-keys.ts';
import { definitionRef } from '../../port/definition.ts';
import { OutcomeUnknown } from '../../port/errors.ts';
import {
  type DefinedBy,
  type EngineIndexes,
  type IndexSpec,
  type IndexStatus,
  isSameSpec,
  type UsableIndex,
} from '../../port/index-port.ts';
import type { Write } from '../../port/port.ts';
import type { Row, Statement, Transaction } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { orUndefined, ROW_COLUMNS, readStateRow } from '../rows/rows.ts';
import {
  CHANGED,
  type IndexRow,
  type IndexRows,
  NO_INDEXES,
  type PreparedKeys,
  readIndexes,
  specText,
  stateOf,
} from './index-rows.ts';
import { OrderedIndexes } from './ordered-indexes.ts';
import { ORDER_SIZES, RunsWorker, type RunsWorkerOptions } from './runs-worker.ts';
import { TokenBuilder, type TokenBuilderOptions } from './token-builder.ts';

/** The definition of an index, and the number of documents it will have, under the project's lock. */
const DEFINITION: Statement = {
  name: 'bundoc-definition-1',
  text: `SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE project = $1 AND name = $2`,
};
const COUNT: Statement = {
  name: 'bundoc-count-collection-1',
  text: 'SELECT documents FROM bundoc.collections WHERE project = $1 AND token = $2',
};
const MAKE: Statement = {
  name: 'bundoc-make-index-1',
  text: `INSERT INTO bundoc.indexes (project, id, collection, key_version, spec, since, total, duplicates) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
};
const DROP: Statement = {
  name: 'bundoc-drop-indexes-1',
  text: 'UPDATE bundoc.indexes SET dropped = true WHERE project = $1 AND id = ANY ($2::bigint[])',
};
/** How often a tail is looked at while it grows. */
const LOOKS_OF_TAIL = 4;
/** How often the indexes are read even if nobody has changed them, milliseconds. */
const READ_EVERY_MS = 3_600_000;

export interface IndexKeeperOptions extends Omit<TokenBuilderOptions, 'removeRuns'>, RunsWorkerOptions {
  readonly clock: Clock;
}

interface Wanted {
  readonly specs: readonly IndexSpec[];
  readonly rev: string | undefined;
}

/**
 * The indexes of a project, for which every node writes keys and tokens. They are rows, changed under the
 * project's lock, and versioned by `heads.index_version`. Each commit compares that version with the one its
 * node knows. So every commit after an index's creation has its entries, whichever node made it and whichever
 * definitions that node had read. Earlier documents get theirs from the {@link TokenBuilder}.
 */
export class IndexKeeper implements EngineIndexes {
  readonly #options: IndexKeeperOptions;
  readonly #rows: RowCipher;
  readonly #wanted = new Map<string, Wanted>();
  readonly #prepared = new WeakMap<DocumentContent, PreparedKeys>();
  /** Writes since the tails of a collection were last looked at. Only of collections with indexes. */
  readonly #written = new Map<string, number>();
  #known: IndexRows = NO_INDEXES;
  /** When they were read. */
  #readMs = 0;
  readonly #builder: TokenBuilder;
  readonly #worker: RunsWorker;
  /** What answers know of the indexes' order. */
  readonly ordered: OrderedIndexes;

  constructor(options: IndexKeeperOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
    this.#worker = new RunsWorker(options, rows);
    this.ordered = new OrderedIndexes(rows, this.#worker, options.orderSizes);
    const removeRuns = (id: number) => this.#worker.remove(id);
    this.#builder = new TokenBuilder({ ...options, removeRuns }, rows);
  }

  /** Reads the current indexes. */
  async begin(): Promise<void> {
    const { database, project, clock } = this.#options;
    this.#readMs = clock.monotonic();
    this.#known = await this.#retry(() => readIndexes(database, project, this.#rows));
    this.ordered.retain([...this.#known.byCollection.values()].flat());
  }

  /** The indexes that commits must write entries for. */
  async asOf(version: number, transaction: Transaction): Promise<IndexRows> {
    if (version === this.#known.version) return this.#known;
    const indexes = await readIndexes(transaction, this.#options.project, this.#rows);
    this.#known = indexes;
    return indexes;
  }

  /** The indexes that answers may use. */
  whole(collection: string): readonly IndexRow[] {
    return this.#of(collection).filter((index) => this.ordered.isUsable(index));
  }

  async prepare(writes: readonly Write[], work: Work): Promise<void> {
    for (const write of writes) {
      if (write.kind === 'delete') continue;
      const indexes = this.#of(write.ref.collection).filter(isOfOwnMembers);
      if (indexes.length === 0) continue;
      const keys = await keysOfContent(indexes, write.content, work);
      this.#prepared.set(write.content, new Map(indexes.map(({ id }, at) => [id, keys[at] as IndexKeys])));
    }
    work.leave();
  }

  /** The keys of a document that were computed before its commit. */
  preparedOf(content: DocumentContent): PreparedKeys | undefined {
    return this.#prepared.get(content);
  }

  define(collection: string, specs: readonly IndexSpec[], { rev }: DefinedBy): void {
    if (rev === undefined) this.#wanted.delete(collection);
    else this.#wanted.set(collection, { specs, rev });
  }

  keep(): Promise<void> {
    return this.#options.watched(this.#keep());
  }

  get version(): number {
    return this.#known.version;
  }

  get isSettled(): boolean {
    const { byCollection, dropped, damaged } = this.#known;
    if (dropped.length + damaged.size > 0 || !this.#worker.isIdle) return false;
    // Runs may have been left meanwhile.
    const isOld = this.#options.clock.monotonic() - this.#readMs >= READ_EVERY_MS;
    if (isOld && byCollection.size > 0) return false;
    if (this.#wanted.keys().some((collection) => !this.#isKept(collection))) return false;
    return byCollection
      .values()
      .every((indexes) => indexes.every((index) => stateOf(index).state !== 'building'));
  }

  status(collection: string): readonly IndexStatus[] {
    return this.#of(collection).map((index) => {
      const { name, fields, unique } = index.spec;
      return { name, fields, unique, bytes: index.bytes, ...stateOf(index) };
    });
  }

  usable(collection: string): readonly UsableIndex[] {
    return this.whole(collection).map((index) => this.ordered.describe(index));
  }

  async built(): Promise<void> {
    await this.#builder.settled();
    await this.#worker.settled();
  }

  /** Notes committed writes: after many to a collection, the tails of its indexes may be long. */
  wrote(writes: readonly Write[]): void {
    const { tailChanges } = this.#options.orderSizes ?? ORDER_SIZES;
    for (const { ref } of writes) {
      const indexes = this.#of(ref.collection);
      if (indexes.length === 0) continue;
      const written = (this.#written.get(ref.collection) ?? 0) + 1;
      const isMany = written >= tailChanges / LOOKS_OF_TAIL;
      this.#written.set(ref.collection, isMany ? 0 : written);
      if (isMany) for (const { id } of indexes) this.#worker.isDue(id);
    }
  }

  /** Stops the running work. */
  async stop(): Promise<void> {
    await Promise.all([this.#builder.stop(), this.#worker.stop()]);
  }

  async #keep(): Promise<void> {
    await this.begin();
    const collections = new Set([...this.#wanted.keys(), ...this.#known.byCollection.keys()]);
    for (const collection of collections)
      if (!this.#isKept(collection)) await this.#retry(() => this.#agree(collection));
    this.#builder.resume(this.#known, () => this.begin());
    this.#worker.resume(this.#known, () => this.begin());
  }

  /** Retries an action that is safe to repeat. */
  #retry<T>(action: () => Promise<T>): Promise<T> {
    return retryUnavailable(this.#options.clock, () =>
      action().catch((error: unknown) => {
        if (!(error instanceof OutcomeUnknown)) throw error;
        throw new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
      }),
    );
  }

  #of(collection: string): readonly IndexRow[] {
    return this.#known.byCollection.get(collection) ?? [];
  }

  /** Whether the collection's indexes are the wanted ones, as far as this node knows. */
  #isKept(collection: string): boolean {
    const { specs } = this.#wantedOf(collection);
    const token = this.#rows.collectionToken(collection).toString('hex');
    if (this.#known.damaged.has(token)) return false;
    const kept = this.#of(collection).filter((index) => this.#isWanted(index));
    return kept.length === this.#of(collection).length && kept.length === specs.length;
  }

  #wantedOf(collection: string): Wanted {
    return this.#wanted.get(collection) ?? { specs: [], rev: undefined };
  }

  /** An index with duplicates is rebuilt for a new definition. */
  #isWanted({ collection, spec, duplicates, rev }: IndexRow): boolean {
    const wanted = this.#wantedOf(collection);
    if ((duplicates ?? 0) > 0 && rev !== wanted.rev) return false;
    return wanted.specs.some((one) => isSameSpec(one, spec));
  }

  /**
   * Makes the indexes of a collection match its definition, under the project's lock. Does nothing when the
   * definition differs from the one that this node has read; then a later call, here or on another node, does
   * it.
   */
  async #agree(collection: string): Promise<void> {
    const { project, database, cipher } = this.#options;
    const { specs, rev } = this.#wantedOf(collection);
    const name = Buffer.from(cipher.fileName(definitionRef(collection)), 'hex');
    const token = this.#rows.collectionToken(collection);
    const lock = `SELECT seq, index_version FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`;
    await database.transaction(lock, async (transaction, [head]) => {
      const [seq, version] = (head?.[0] ?? []) as unknown as [number | undefined, number];
      if (seq === undefined) return undefined;
      const [defined] = await transaction.query(DEFINITION, [project, name]);
      if (!this.#isOf(defined, rev)) return undefined;
      const known = await this.asOf(version, transaction);
      const present = known.byCollection.get(collection) ?? [];
      const kept = present.filter((index) => this.#isWanted(index));
      const dropped = [
        ...present.filter((index) => !kept.includes(index)).map(({ id }) => id),
        ...(known.damaged.get(token.toString('hex')) ?? []),
      ];
      const missing = specs.filter((spec) => !kept.some((index) => isSameSpec(index.spec, spec)));
      if (dropped.length + missing.length === 0) return undefined;
      const [count] = await transaction.query(COUNT, [project, token]);
      let next = version + 1;
      for (const spec of missing) {
        const sealed = this.#rows.sealIndexSpec(next, specText(collection, spec, String(rev)));
        const total = Number(count?.[0] ?? 0);
        const values = [token, this.#rows.version, sealed, seq, total, spec.unique ? null : 0];
        await transaction.query(MAKE, [project, next, ...values]);
        next++;
      }
      if (dropped.length > 0) await transaction.query(DROP, [project, dropped]);
      await transaction.query(CHANGED, [project, next]);
      return true;
    });
    await this.begin();
  }

  /**
   * Whether a definition still has this revision; undefined means that there is none. An undecryptable row
   * has no revision that a node could have read.
   */
  #isOf(row: Row | undefined, rev: string | undefined): boolean {
    if (row === undefined) return rev === undefined;
    const state = orUndefined(() => readStateRow(row, this.#rows));
    return state !== undefined && (state.deletedMs === 0 ? state.rev.toString('hex') : undefined) === rev;
  }
}
