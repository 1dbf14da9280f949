import { randomUUID } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { sortInSteps } from '../../../work/sort-in-steps.ts';
import type { OwnWork, Work } from '../../../work/work.ts';
import type { IndexKeys } from '../../indexes/index-keys.ts';
import { keysInTurns } from '../../indexes/prepared-keys.ts';
import type { ListQuery, Position } from '../../port/port.ts';
import type { Database, Queryable, Transaction } from '../database/database.ts';
import { entriesOf, type OrderEntry } from '../order/entry.ts';
import type { Manifest, Run } from '../order/manifest.ts';
import { mergeFrom, mergeRuns } from '../order/merge.ts';
import { type RunSteps, RunWriter, writeRun } from '../order/run-writer.ts';
import type { PageCipher, RowCipher } from '../rows/row-cipher.ts';
import { CHANGED, type IndexRow, type IndexRows } from './index-rows.ts';
import { readOrdered } from './ordered-rows.ts';
import { OrderedState, RunsDamaged } from './ordered-state.ts';
import { RunRows, type StoredRuns } from './run-rows.ts';

/** Bytes of documents that a build reads at once. */
const BUILD_BYTES = 1_048_576;
/** A database may damage whatever is written. Then the rest is for the next time. */
const RESETS_MAX = 3;
/** Sizes of tails and runs. */
export interface OrderSizes {
  /** Documents that a build reads at once. */
  readonly buildDocuments: number;
  /** Entries of a run of a build, which are sorted in memory. */
  readonly segmentEntries: number;
  /** Units of their places. */
  readonly segmentUnits: number;
  /** Changes, or bytes of their places, after which a tail becomes a run. */
  readonly tailChanges: number;
  readonly tailBytes: number;
  /** Changes that become one run. */
  readonly tailChangesMax: number;
  /** Commits after which runs are as of a later one, even if their collection has not changed. */
  readonly commitsUnseenMax: number;
}

/** 65,536 entries take 10 MiB. */
export const ORDER_SIZES: OrderSizes = {
  buildDocuments: 500,
  segmentEntries: 65_536,
  segmentUnits: 8_388_608,
  tailChanges: 4_096,
  tailBytes: 1_048_576,
  tailChangesMax: 16_384,
  commitsUnseenMax: 65_536,
};

/** A page of the documents of a collection. */
export interface IndexedPage {
  /** In the order of their creation, without those that do not open: an index has the others. */
  readonly documents: readonly {
    readonly position: Position;
    /** The position of its last change. */
    readonly seq: Position;
    readonly text: Buffer;
  }[];
  readonly next: Position | undefined;
}

export interface RunsWorkerOptions {
  readonly project: string;
  readonly database: Database;
  readonly listRows: (query: ListQuery) => Promise<IndexedPage>;
  /** Observes every error, and turns it into the error for callers. */
  readonly watched: <T>(work: Promise<T>) => Promise<T>;
  readonly ownWork: OwnWork;
  readonly orderSizes?: OrderSizes | undefined;
}

/**
 * Builds and merges the runs of a project's indexes in the background. Nodes share the work: one of them
 * works on an index at a time, and when it stops, another continues. No commit waits for it.
 */
export class RunsWorker {
  readonly #options: RunsWorkerOptions;
  readonly #rows: RowCipher;
  readonly #sizes: OrderSizes;
  readonly #id = randomUUID();
  /** Indexes that may need work. */
  readonly #due = new Set<number>();
  /** Versions of runs that answers could not read. */
  readonly #damaged = new Map<number, number>();
  #work: Promise<void> | undefined;
  #stopped = false;

  constructor(options: RunsWorkerOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
    this.#sizes = options.orderSizes ?? ORDER_SIZES;
  }

  /** An index may need work: its tail is long. */
  isDue(id: number): void {
    this.#due.add(id);
  }

  /** The runs of an index up to a version are damaged. */
  isDamaged(id: number, version: number): void {
    this.#damaged.set(id, version);
    this.#due.add(id);
  }

  get isIdle(): boolean {
    return this.#due.size === 0 && this.#work === undefined;
  }

  /**
   * Works on the indexes that need it, unless it does already. The next call retries what failed.
   *
   * @param done called when an index has become whole.
   */
  resume({ byCollection }: IndexRows, done: () => Promise<void>): void {
    const all = new Map([...byCollection.values()].flat().map((index) => [index.id, index]));
    for (const { id, runsIndexed, runsKeyVersion, hasLeftRuns } of all.values())
      if (runsIndexed !== undefined || hasLeftRuns || runsKeyVersion !== this.#rows.version)
        this.#due.add(id);
    for (const id of this.#due) if (!all.has(id)) this.#due.delete(id);
    if (this.#work !== undefined || this.#stopped || this.#due.size === 0) return;
    const due = Array.from(this.#due, (id) => all.get(id) as IndexRow);
    this.#work = this.#options
      .watched(this.#run(due, done))
      .catch(() => undefined)
      .finally(() => {
        this.#work = undefined;
      });
  }

  /** Resolves when no work is running. */
  async settled(): Promise<void> {
    await this.#work;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  /** Removes all runs of a dropped index. */
  async remove(id: number): Promise<void> {
    await this.#clean(this.#runRows(id), true);
  }

  async #run(indexes: readonly IndexRow[], done: () => Promise<void>): Promise<void> {
    for (const index of indexes) {
      if (this.#stopped) return;
      // One that fails each time does not hold up the others.
      this.#due.delete(index.id);
      this.#due.add(index.id);
      const runs = this.#runRows(index.id);
      if (!(await runs.takeWork())) continue;
      try {
        using work = this.#options.ownWork('index');
        if (await this.#workOn(index, runs, work, done)) this.#due.delete(index.id);
        await this.#clean(runs, false);
      } finally {
        await runs.endWork();
      }
    }
    // What is known of their runs may be out of date, also if another node has worked.
    await done();
  }

  /** @returns whether nothing is left to do. */
  async #workOn(index: IndexRow, runs: RunRows, work: Work, done: () => Promise<void>): Promise<boolean> {
    for (let resets = 0; resets < RESETS_MAX; ) {
      if (this.#stopped) return false;
      const stored = await work.outside(() => runs.read());
      if (stored === undefined) return true;
      const damagedUpTo = this.#damaged.get(index.id) ?? -1;
      if (stored.version <= damagedUpTo) {
        await this.#reset(index.id, stored.version, damagedUpTo);
        resets++;
        continue;
      }
      this.#damaged.delete(index.id);
      const step = await this.#step(index, runs, stored, work).catch((error: unknown) => {
        if (error instanceof RunsDamaged) return 'damaged' as const;
        throw error;
      });
      if (step === 'damaged') {
        await this.#reset(index.id, stored.version);
        resets++;
      } else if (step === 'whole') await done();
      else if (step === 'nothing') return true;
      else if (step === 'stopped') return false;
    }
    return false;
  }

  /** One swap of the runs. */
  async #step(index: IndexRow, runs: RunRows, stored: StoredRuns, work: Work): Promise<Step> {
    const { manifest, since, seq, isDamaged, keyVersion, version } = stored;
    if (isDamaged || since > seq) return 'damaged';
    const own = new RunsOfIndex(runs, this.#rows, work);
    if (manifest?.builtTo !== 'all') {
      const begun = manifest ?? { asOf: since, builtTo: 0, indexed: 0, runs: [] };
      if (begun.asOf !== since || (keyVersion ?? this.#rows.version) !== this.#rows.version) return 'damaged';
      return await this.#build(index, own, begun, version);
    }
    const isCurrent = keyVersion === this.#rows.version;
    // Under a new version of the key, all runs are written again.
    const from = isCurrent ? mergeFrom(manifest.runs) : 0;
    if (from !== undefined) {
      const kept = manifest.runs.slice(0, from);
      const merged = manifest.runs.slice(from);
      const run = merged.length === 0 ? [] : await own.merge(merged, keyVersion as number, from === 0);
      if (run === undefined) return 'stopped';
      return await this.#swap(runs, version, { ...manifest, runs: kept.concat(run) });
    }
    if (!stored.isWhole) return await this.#becomeWhole(index.id, version, manifest);
    return await this.#endTail(index, own, manifest, stored);
  }

  /** Adds a run with the documents that follow those of the runs so far. */
  async #build(index: IndexRow, own: RunsOfIndex, begun: Manifest, version: number): Promise<Step> {
    const entries = new Map<string, OrderEntry>();
    let { indexed } = begun;
    let after: number | undefined = begun.builtTo as number;
    let units = 0;
    const { buildDocuments: limit, segmentEntries, segmentUnits } = this.#sizes;
    const first = { collection: index.collection, limit, bytesMax: BUILD_BYTES };
    while (after !== undefined && entries.size < segmentEntries && units < segmentUnits) {
      if (this.#stopped || !(await own.work.outside(() => own.rows.keepWork()))) return 'stopped';
      const query: ListQuery = { ...first, after, work: own.work };
      const page: IndexedPage = await own.work.outside(() => this.#options.listRows(query));
      for (const { position, seq, text } of page.documents) {
        if (position > begun.asOf) break;
        indexed++;
        // A later state is in the tail.
        if (seq > begun.asOf) continue;
        const [made] = await keysInTurns([index], [text], own.work);
        const { keys, tooMany } = made as IndexKeys;
        for (const entry of entriesOf(position, seq, tooMany ? 'too many' : keys)) {
          entries.set(entry.place, entry);
          units += entry.place.length;
        }
      }
      after = page.next === undefined || page.next >= begun.asOf ? undefined : page.next;
    }
    const places = await sortInSteps([...entries.keys()], own.work);
    const sorted = places.map((place) => entries.get(place) as OrderEntry);
    const run = sorted.length === 0 ? undefined : await own.write(sorted, []);
    if (sorted.length > 0 && run === undefined) return 'stopped';
    const runs = run === undefined ? begun.runs : [...begun.runs, run];
    const manifest: Manifest = { ...begun, indexed, runs, builtTo: after ?? 'all' };
    if (after !== undefined) return await this.#swap(own.rows, version, manifest, indexed);
    return await this.#becomeWhole(index.id, version, manifest);
  }

  /** All nodes learn that an index is whole before they use it. */
  async #becomeWhole(id: number, version: number, manifest: Manifest): Promise<Step> {
    const swap = (transaction: Transaction) =>
      this.#runRows(id, transaction).swap(version, manifest, undefined);
    return (await this.#announced(swap)) ? 'whole' : 'stopped';
  }

  /** No node uses damaged runs any more. They are built again. */
  async #reset(id: number, version: number, known = version): Promise<void> {
    await this.#announced((transaction) => this.#runRows(id, transaction).reset(version, known));
  }

  /** Changes an index under the project's lock, so that all nodes learn it. */
  async #announced(change: (transaction: Transaction) => Promise<boolean>): Promise<boolean> {
    const { database, project } = this.#options;
    const lock = `SELECT index_version FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`;
    const done = await database.transaction(lock, async (transaction, [head]) => {
      if (head?.[0] === undefined || !(await change(transaction))) return undefined;
      await transaction.query(CHANGED, [project, Number(head[0][0]) + 1]);
      return true;
    });
    return done === true;
  }

  /** Makes a long tail a run. */
  async #endTail(index: IndexRow, own: RunsOfIndex, manifest: Manifest, stored: StoredRuns): Promise<Step> {
    const { database, project } = this.#options;
    const place = { project, id: index.id, collection: this.#rows.collectionToken(index.collection) };
    const { tailChanges, tailBytes, tailChangesMax, commitsUnseenMax } = this.#sizes;
    const state = new OrderedState(index, this.#rows);
    const nothing = { documents: [], bytesMax: 0, pages: [] };
    for (let isComplete = false; !isComplete && state.tail.changes < tailChangesMax; ) {
      const rows = await own.work.outside(() => readOrdered(database, place, state.known, nothing));
      if (rows === undefined) return 'stopped';
      state.learn(rows);
      ({ isComplete } = rows);
    }
    const { tail } = state;
    const isLong = tail.changes >= tailChanges || tail.bytes >= tailBytes;
    const isBehind = tail.seenTo - manifest.asOf >= commitsUnseenMax;
    if (!isLong && !isBehind) return 'nothing';
    const later = { ...manifest, asOf: tail.seenTo };
    if (tail.changes === 0) return await this.#swap(own.rows, stored.version, later);
    const run = await own.write(tail.entries(), manifest.runs.length === 0 ? [] : tail.changed());
    if (run === undefined) return 'stopped';
    return await this.#swap(own.rows, stored.version, { ...later, runs: [...manifest.runs, run] });
  }

  async #swap(runs: RunRows, version: number, manifest: Manifest, indexed?: number): Promise<Step> {
    return (await runs.swap(version, manifest, indexed)) ? 'swapped' : 'stopped';
  }

  async #clean(runs: RunRows, all: boolean): Promise<void> {
    for (const run of await runs.left(all))
      for (let isGone = false; !isGone; ) {
        if (this.#stopped) return;
        isGone = await runs.removeSome(run);
      }
  }

  #runRows(id: number, queryable: Queryable = this.#options.database): RunRows {
    return new RunRows(queryable, this.#options.project, id, this.#rows, this.#id);
  }
}

type Step = 'swapped' | 'whole' | 'nothing' | 'damaged' | 'stopped';

/** Reads and writes the pages of one index's runs. */
class RunsOfIndex {
  readonly rows: RunRows;
  readonly work: Work;
  readonly #cipher: RowCipher;

  constructor(rows: RunRows, cipher: RowCipher, work: Work) {
    this.rows = rows;
    this.#cipher = cipher;
    this.work = work;
  }

  /** Undefined when the index is gone. */
  async write(entries: readonly OrderEntry[], changed: readonly number[]): Promise<Run | undefined> {
    const writer = new RunWriter();
    return await this.#drive(writer, writeRun(writer, entries, changed));
  }

  /**
   * @param keyVersion of the runs.
   * @param isOldest no older run is left.
   * @returns undefined when the index is gone.
   * @throws RunsDamaged.
   */
  async merge(runs: readonly Run[], keyVersion: number, isOldest: boolean): Promise<Run | undefined> {
    const writer = new RunWriter();
    const ciphers = new Map(runs.map(({ id }) => [id, this.#cipher.pageCipher(id, keyVersion)]));
    try {
      return await this.#drive(writer, mergeRuns(writer, runs, isOldest), ciphers);
    } catch (error) {
      throw error instanceof OpenError ? new RunsDamaged() : error;
    }
  }

  /** @param ciphers of the runs that are read. */
  async #drive(
    writer: RunWriter,
    steps: RunSteps,
    ciphers: ReadonlyMap<string, PageCipher> = new Map(),
  ): Promise<Run | undefined> {
    const cipher = this.#cipher.pageCipher(writer.id);
    for (let step = steps.next(undefined); ; ) {
      if (step.done === true) return step.value;
      let read: Map<number, Buffer> | undefined;
      const turn = this.work.pause();
      if (turn !== undefined) await turn;
      if (step.value.kind === 'read') {
        if (!(await this.work.outside(() => this.rows.keepWork()))) return undefined;
        const { ids } = step.value;
        const found = await this.work.outside(() => this.rows.pages(ids));
        read = new Map();
        for (const { id, run, sealed } of found) {
          const page = sealed === null ? undefined : ciphers.get(run)?.open(id, sealed);
          if (page !== undefined) read.set(id, page);
        }
      }
      if (step.value.kind === 'write') {
        const pages = step.value.pages.map(({ id, bytes }) => ({ id, sealed: cipher.seal(id, bytes) }));
        if (!(await this.work.outside(() => this.rows.addPages(writer.id, pages)))) return undefined;
      }
      step = steps.next(read);
    }
  }
}
