import type { Clock } from '@bundoc/shared/runtime/clock';
import type { UsableIndex } from '../../port/index-port.ts';
import type { DocumentPage, Position, StoredDocument } from '../../port/port.ts';
import {
  beyondLastCommit,
  type IndexPage,
  type IndexSearch,
  type ReadPlace,
  type SnapshotListQuery,
  StateMoved,
  type StoreSnapshot,
  snapshotTooOld,
} from '../../port/snapshot-port.ts';
import type { BoundStatement, Queryable, Row, Statement } from '../database/database.ts';
import type { HeldTransaction } from '../database/held-transaction.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';
import type { IndexRow } from '../indexes/index-rows.ts';
import type { OrderedIndexes } from '../indexes/ordered-indexes.ts';
import { projectGone, type ReadPage, type RowReader } from '../reads/row-reader.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { OrderedAnswers } from './ordered-answers.ts';
import type { SnapshotConnections } from './snapshot-connections.ts';

/** Changes of other collections that a search for one of this collection visits; more count as one. */
const CHANGES_MAX = 1_000;
/**
 * The head, the size of a collection, and whether one of its documents may have changed since a position,
 * because deletions may be forgotten.
 */
const CHANGED: Statement = {
  name: 'bundoc-changed-since-1',
  text: `
SELECT h.seq, (SELECT documents FROM bundoc.collections WHERE project = $1 AND token = $2),
  CASE WHEN h.seq = $3 THEN false WHEN h.seq < $3 OR h.purged_seq > $3 THEN true ELSE (
    SELECT count(*) > ${CHANGES_MAX} OR count(*) FILTER (WHERE collection = $2) > 0 FROM (
      SELECT collection FROM bundoc.documents WHERE project = $1 AND seq > $3 AND seq > 0 ORDER BY seq LIMIT ${CHANGES_MAX} + 1
    ) AS d
  ) END
FROM bundoc.heads AS h WHERE h.project = $1`,
};

/** After every position. */
const NEVER = Number.MAX_SAFE_INTEGER;
/** How often a long answer checks that its project still exists, milliseconds. */
const CHECK_EVERY_MS = 250;

/** What the snapshots of a project need. */
export interface SnapshotPorts {
  readonly project: string;
  readonly database: Queryable;
  readonly connections: SnapshotConnections;
  readonly clock: Clock;
  readonly reader: RowReader;
  readonly ordered: OrderedIndexes;
  readonly rows: RowCipher;
  /** Returns the error of a read for the caller. */
  readonly watched: <T>(reading: Promise<T>) => Promise<T>;
  /** Those that are not disposed of. */
  readonly open: Set<PostgresSnapshot>;
}

/** The collection of a snapshot. */
export interface ShownCollection {
  readonly collection: string;
  /** Its indexes that were whole before the first read. */
  readonly indexes: readonly IndexRow[];
  /** The state to show. By default that of the first read. */
  readonly asOf: Position | undefined;
  readonly place: ReadPlace | undefined;
}

/** A state of a collection: the position of the last commit, and the number of documents. */
type Shown = Pick<ReadPage, 'asOf' | 'total'>;

/**
 * A collection as of one commit. The first read is an ordinary statement, which sees one state. Most answers
 * need no other. The second one begins a transaction that sees one state, too. If the collection has not
 * changed in between, both are the same. Otherwise the answer begins again, within the transaction.
 */
export class PostgresSnapshot implements StoreSnapshot {
  readonly keptBytes = 0;
  readonly #ports: SnapshotPorts;
  readonly #of: ShownCollection;
  #shown: Shown | undefined;
  #held: Promise<HeldTransaction> | undefined;
  readonly #order: OrderedAnswers;
  #hasMoved = false;
  #isOver = false;
  #checkedMs: number;

  constructor(ports: SnapshotPorts, of: ShownCollection) {
    this.#ports = ports;
    this.#of = of;
    this.#order = new OrderedAnswers(ports, of.indexes);
    this.#checkedMs = ports.clock.monotonic();
    ports.open.add(this);
  }

  get asOf(): Position | undefined {
    return this.#shown?.asOf;
  }

  list(query: SnapshotListQuery): Promise<DocumentPage> {
    return this.#ports.watched(this.#list(query));
  }

  get(id: string): Promise<StoredDocument | undefined> {
    const ref = { collection: this.#of.collection, id };
    return this.#ports.watched(this.#inTransaction((held) => this.#ports.reader.getIn(held, ref)));
  }

  async total(): Promise<number> {
    this.#shown ?? (await this.#ports.watched(this.#inTransaction(async () => undefined)));
    return this.#shown?.total ?? 0;
  }

  usable(): readonly UsableIndex[] {
    return this.#order.usable();
  }

  search(query: IndexSearch): Promise<IndexPage | undefined> {
    return this.#ports.watched(this.#search(query));
  }

  /** Later reads are refused. */
  [Symbol.dispose](): void {
    this.#ports.open.delete(this);
    this.#isOver = true;
    this.#held?.then(
      (held) => held.end(snapshotTooOld()),
      () => undefined,
    );
  }

  async #list(query: SnapshotListQuery): Promise<DocumentPage> {
    const { reader } = this.#ports;
    const { collection } = this.#of;
    if (this.#shown !== undefined || this.#held !== undefined)
      return await this.#inTransaction(
        (held) => reader.list({ ...query, collection }, held),
        query.work?.signal,
      );
    const page = await reader.list({ ...query, collection });
    this.#shown = await this.#asRequested(page);
    return page;
  }

  count(query: Pick<IndexSearch, 'index' | 'ranges' | 'work'>): Promise<number | undefined> {
    if (!this.#order.has(query.index)) return Promise.resolve(undefined);
    const counting = this.#inTransaction((held) => this.#order.count(query, held), query.work?.signal);
    return this.#ports.watched(counting);
  }

  async #search(query: IndexSearch): Promise<IndexPage | undefined> {
    if (!this.#order.has(query.index)) return undefined;
    const isLater = this.#shown !== undefined || this.#held !== undefined;
    if (isLater || this.#order.needsTransaction)
      return await this.#inTransaction((held) => this.#order.find(query, held), query.work?.signal);
    const page = await this.#order.find(query);
    this.#shown = await this.#asRequested(page);
    return page;
  }

  /** The state of the first read, as of the requested position if it is the same. */
  async #asRequested({ asOf: readAsOf, total }: Shown): Promise<Shown> {
    const { database, clock } = this.#ports;
    const { asOf = readAsOf } = this.#of;
    if (asOf === readAsOf) return { asOf, total };
    // A later commit may come before the next statement, which would find this state unchanged.
    if (asOf > readAsOf) throw beyondLastCommit();
    const { statement, values } = this.#changedSince(asOf);
    // After the read: what has not changed until now had not changed before.
    const rows = await retryUnavailable(clock, () => database.query(statement, values));
    this.#requireUnchanged(rows, asOf);
    return { asOf, total };
  }

  async #inTransaction<T>(read: (held: HeldTransaction) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#isOver) throw snapshotTooOld();
    this.#held ??= this.#begin(signal);
    const held = await this.#held;
    if (this.#hasMoved) {
      this.#hasMoved = false;
      throw new StateMoved();
    }
    const [result] = await Promise.all([read(held), this.#requireProject()]);
    return result;
  }

  /** @param signal ends the wait for a connection. */
  async #begin(signal: AbortSignal | undefined): Promise<HeldTransaction> {
    const { connections, project } = this.#ports;
    const { place } = this.#of;
    const asOf = this.#shown?.asOf ?? this.#of.asOf;
    place?.leave();
    const { held, rows } = await connections.begin(project, this.#changedSince(asOf ?? NEVER), signal);
    try {
      await place?.retake();
      this.#shown = this.#stateOf(rows, asOf);
    } catch (error) {
      held.end(snapshotTooOld());
      throw error;
    }
    return held;
  }

  /** The state of a transaction, which may be a later one than that of the first read. */
  #stateOf(rows: readonly Row[], asOf: Position | undefined): Shown {
    const { seq, total, hasChanged } = changedOf(rows);
    if (asOf === undefined) return { asOf: seq, total };
    if (this.#of.asOf !== undefined) this.#requireUnchanged(rows, asOf);
    this.#hasMoved = hasChanged;
    return { asOf: hasChanged ? seq : asOf, total };
  }

  /** @throws AppError `snapshot_too_old`, `invalid_request`. */
  #requireUnchanged(rows: readonly Row[], asOf: Position): void {
    const { seq, hasChanged } = changedOf(rows);
    if (asOf > seq) throw beyondLastCommit();
    if (hasChanged) throw snapshotTooOld();
  }

  #changedSince(asOf: Position): BoundStatement {
    const { project, rows } = this.#ports;
    return { statement: CHANGED, values: [project, rows.collectionToken(this.#of.collection), asOf] };
  }

  /** A transaction still sees a project that another node has deleted or moved. */
  async #requireProject(): Promise<void> {
    const { clock, reader } = this.#ports;
    const nowMs = clock.monotonic();
    if (nowMs - this.#checkedMs < CHECK_EVERY_MS) return;
    this.#checkedMs = nowMs;
    await reader.position();
  }
}

/** @throws ProjectGone. */
function changedOf([row]: readonly Row[]): Pick<Shown, 'total'> & { seq: Position; hasChanged: boolean } {
  if (row === undefined) throw projectGone();
  const [seq, total, hasChanged] = row as unknown as [number, number | null, boolean];
  return { seq, total: total ?? 0, hasChanged };
}
