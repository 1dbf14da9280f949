import { setImmediate } from 'node:timers/promises';
import type { Clock } from '@bundoc/shared/clock';
import { AppError } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import { definitionRef } from '../collections/definition.ts';
import {
  type DefinedBy,
  type EngineIndexes,
  type IndexRef,
  type IndexSpec,
  type IndexStatus,
  isRefTo,
  isSameSpec,
  type UsableIndex,
} from '../indexes/port.ts';
import type { DocumentPage, ListedDocument, ListQuery } from '../port.ts';
import {
  alwaysToken,
  type BlindEntries,
  type BlindIndex,
  type BlindIndexes,
  entriesOf,
  NO_INDEXES,
  readBlindIndexes,
  specText,
  stateOf,
  tokensOf,
} from './blind-index.ts';
import { type Database, OutcomeUnknown, type Row, type Statement, type Transaction } from './database.ts';
import { patiently } from './patience.ts';
import { lockOf } from './project-rows.ts';
import type { RowCipher } from './row-cipher.ts';
import { orUndefined, ROW_COLUMNS, readStateRow } from './rows.ts';

/** The definition that an index is made for, and how many documents it is to hold, under the project's lock. */
const DEFINITION: Statement = {
  name: 'bundoc-definition-1',
  text: `SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE project = $1 AND name = $2`,
};
const COUNT: Statement = {
  name: 'bundoc-count-collection-1',
  text: 'SELECT documents FROM bundoc.collections WHERE project = $1 AND token = $2',
};
const MAKE: Statement = {
  name: 'bundoc-make-blind-index-1',
  text: `INSERT INTO bundoc.blind_indexes (project, id, collection, key_version, spec, since, total) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
};
const DROP: Statement = {
  name: 'bundoc-drop-blind-indexes-1',
  text: 'UPDATE bundoc.blind_indexes SET dropped = true WHERE project = $1 AND id = ANY ($2::bigint[])',
};
/** From then on, nobody commits to the project who does not write entries. */
const CHANGED: Statement = {
  name: 'bundoc-blind-indexes-changed-1',
  text: 'UPDATE bundoc.heads SET index_version = $2, index_seq = seq WHERE project = $1',
};
/** Nothing when somebody else has got ahead. */
const ADVANCE: Statement = {
  name: 'bundoc-advance-blind-indexes-1',
  text: `
UPDATE bundoc.blind_indexes SET built_to = $4, indexed = indexed + $5
WHERE project = $1 AND id = ANY ($2::bigint[]) AND built_to = $3 AND duplicates IS NULL AND NOT dropped RETURNING id`,
};
/** Of documents that have not changed since they were read. Those that have got their entries as they did. */
const ADD: Statement = {
  name: 'bundoc-add-blind-entries-1',
  text: `
INSERT INTO bundoc.blind_entries (project, index_id, token, created_seq, name)
SELECT $1, r.index_id, r.token, d.created_seq, d.name
FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[]) AS r(index_id, token, name, rev) CROSS JOIN LATERAL (
  SELECT created_seq, name, rev, deleted_ms FROM bundoc.documents WHERE project = $1 AND documents.name = r.name LIMIT 1
) AS d WHERE d.rev = r.rev AND d.deleted_ms = 0 ON CONFLICT DO NOTHING`,
};
/** Of a page of entries in their order: those with the same token as the one before, and where it ends. */
const DUPLICATES: Statement = {
  name: 'bundoc-duplicates-1',
  text: `
WITH page AS (
  SELECT token, created_seq, row_number() OVER w AS place, coalesce(lag(token) OVER w, $3) = token AND token <> $5 AS again FROM (
    SELECT token, created_seq FROM bundoc.blind_entries
    WHERE project = $1 AND index_id = $2 AND (token, created_seq) > ($3::bytea, $4::bigint) ORDER BY token, created_seq LIMIT $6
  ) AS e WINDOW w AS (ORDER BY token, created_seq)
)
SELECT token, created_seq, (SELECT count(*) FROM page WHERE again) FROM page ORDER BY place DESC LIMIT 1`,
};
const JUDGE: Statement = {
  name: 'bundoc-judge-blind-index-1',
  text: `
UPDATE bundoc.blind_indexes SET duplicates = $3
WHERE project = $1 AND id = $2 AND duplicates IS NULL AND NOT dropped RETURNING id`,
};
const REMOVE: Statement = {
  name: 'bundoc-remove-blind-entries-1',
  text: `
WITH gone AS (
  DELETE FROM bundoc.blind_entries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bundoc.blind_entries WHERE project = $1 AND index_id = $2 LIMIT $3
  )) RETURNING 1
)
SELECT count(*) FROM gone`,
};
const FORGET: Statement = {
  name: 'bundoc-forget-blind-index-1',
  text: 'DELETE FROM bundoc.blind_indexes WHERE project = $1 AND id = $2 AND dropped',
};

/** What one step of a build reads, and entries that one transaction writes or removes, beyond those of one document. */
const BUILD_PAGE = { limit: 200, bytesMax: 1_048_576 };
const ENTRIES_AT_ONCE = 2_000;
/** Entries that are looked at together for duplicates. */
const DUPLICATES_PAGE = 20_000;

export interface BlindIndexingOptions {
  readonly project: string;
  readonly database: Database;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly list: (query: ListQuery) => Promise<DocumentPage>;
  /** Sees every error, and makes of it what callers are told. */
  readonly watched: <T>(work: Promise<T>) => Promise<T>;
}

interface Wanted {
  readonly specs: readonly IndexSpec[];
  readonly rev: string | undefined;
}

/**
 * The blind indexes of a project, which every node writes entries for. They are rows, changed under the project's lock like all others, and numbered
 * through by `heads.index_version`, which each commit compares with what its node knows: so whatever is committed behind an index's beginning has its
 * entries, whichever node it came by and whatever that had read of definitions. Documents of before are looked at in the order of their creation,
 * without the lock, and get their entries under it unless they have changed.
 */
export class BlindIndexing implements EngineIndexes {
  readonly areBlind = true;
  readonly #options: BlindIndexingOptions;
  readonly #rows: RowCipher;
  readonly #wanted = new Map<string, Wanted>();
  #known: BlindIndexes = NO_INDEXES;
  /** How far builds had come when they were looked at the last time: one that has gone on since is another node's. */
  #seen = new Map<number, number>();
  #work: Promise<void> | undefined;
  #stopped = false;

  constructor(options: BlindIndexingOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
  }

  /** Looks at what there is. */
  async begin(): Promise<void> {
    const { database, project } = this.#options;
    this.#known = await this.#patiently(() => readBlindIndexes(database, project, this.#rows));
  }

  /** What commits obey. */
  async asOf(version: number, transaction: Transaction): Promise<BlindIndexes> {
    if (version === this.#known.version) return this.#known;
    const indexes = await readBlindIndexes(transaction, this.#options.project, this.#rows);
    this.#known = indexes;
    return indexes;
  }

  /** An index that lists may go by; undefined when there is none, or not yet. */
  find(collection: string, ref: IndexRef): BlindIndex | undefined {
    return this.#of(collection).find(
      ({ spec, duplicates }) => isRefTo(spec, ref) && duplicates !== undefined,
    );
  }

  define(collection: string, specs: readonly IndexSpec[], { rev }: DefinedBy): void {
    const blind = specs.filter(({ unique, blind: asked }) => unique || asked === true);
    if (rev === undefined) this.#wanted.delete(collection);
    else this.#wanted.set(collection, { specs: blind, rev });
  }

  keep(): Promise<void> {
    return this.#options.watched(this.#keep());
  }

  status(collection: string): readonly IndexStatus[] {
    return this.#of(collection).map((index) => ({ ...index.spec, ...stateOf(index) }));
  }

  usable(collection: string): readonly UsableIndex[] {
    return this.#of(collection)
      .filter(({ duplicates }) => duplicates !== undefined)
      .map(({ spec: { name, fields } }) => ({ name, fields, isMultiple: true, isBlind: true }));
  }

  async built(): Promise<void> {
    await this.#work;
  }

  /** Ends what is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  async #keep(): Promise<void> {
    await this.begin();
    const collections = new Set([...this.#wanted.keys(), ...this.#known.byCollection.keys()]);
    for (const collection of collections)
      if (!this.#isKept(collection)) await this.#patiently(() => this.#agree(collection));
    this.#start();
  }

  /** All that is done here may be done twice: what was done already is found so. */
  #patiently<T>(action: () => Promise<T>): Promise<T> {
    return patiently(this.#options.clock, () =>
      action().catch((error: unknown) => {
        if (!(error instanceof OutcomeUnknown)) throw error;
        throw new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
      }),
    );
  }

  #of(collection: string): readonly BlindIndex[] {
    return this.#known.byCollection.get(collection) ?? [];
  }

  /** Those that are there are those that are wanted, as far as this node knows. */
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

  /** One that was found to have duplicates is made anew for a new definition. */
  #isWanted({ collection, spec, duplicates, rev }: BlindIndex): boolean {
    const wanted = this.#wantedOf(collection);
    if ((duplicates ?? 0) > 0 && rev !== wanted.rev) return false;
    return wanted.specs.some((one) => isSameSpec(one, spec));
  }

  /**
   * Makes the indexes of a collection those that its definition asks for, under the project's lock. Changes nothing when the definition is not the one
   * that this node has read: then it, or another node, comes again.
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
        const values = [token, this.#rows.version, sealed, seq, Number(count?.[0] ?? 0)];
        await transaction.query(MAKE, [project, next, ...values]);
        next++;
      }
      if (dropped.length > 0) await transaction.query(DROP, [project, dropped]);
      await transaction.query(CHANGED, [project, next]);
      return true;
    });
    await this.begin();
  }

  /** Whether a definition is still of this revision, undefined where there is none. A row that does not open is of none that anybody has read. */
  #isOf(row: Row | undefined, rev: string | undefined): boolean {
    if (row === undefined) return rev === undefined;
    const state = orUndefined(() => readStateRow(row, this.#rows));
    return state !== undefined && (state.deletedMs === 0 ? state.rev.toString('hex') : undefined) === rev;
  }

  /** Goes on with what is left to do, in the background. */
  #start(): void {
    const { byCollection, dropped } = this.#known;
    const building = [...byCollection.values()].flat().filter(({ duplicates }) => duplicates === undefined);
    // What has come on without this node is in the hands of another one.
    const own = building.filter(({ id, builtTo }) => (this.#seen.get(id) ?? builtTo) === builtTo);
    this.#seen = new Map(building.map(({ id, builtTo }) => [id, builtTo]));
    if (this.#work !== undefined || this.#stopped || own.length + dropped.length === 0) return;
    this.#work = this.#options
      .watched(this.#run(own, dropped))
      // It goes on when the indexes are kept the next time.
      .catch(() => undefined)
      .finally(() => {
        this.#work = undefined;
      });
  }

  async #run(building: readonly BlindIndex[], dropped: readonly number[]): Promise<void> {
    // Those of a collection that have come equally far are built together.
    const groups = Map.groupBy(
      building,
      ({ collection, since, builtTo }) => `${collection} ${since} ${builtTo}`,
    );
    for (const group of groups.values()) await this.#build(group);
    for (const id of dropped) await this.#remove(id);
    if (!this.#stopped) await this.begin();
  }

  async #build(indexes: readonly BlindIndex[]): Promise<void> {
    const { collection, since, builtTo } = indexes[0] as BlindIndex;
    for (let after = builtTo; after < since; ) {
      if (this.#stopped) return;
      const page = await this.#options.list({ collection, after, ...BUILD_PAGE });
      const documents = page.documents.filter(({ position }) => position <= since);
      const isLast = page.next === undefined || page.next >= since;
      for (const { entries, to, count } of this.#steps(indexes, documents, isLast ? since : page.next)) {
        if (this.#stopped || !(await this.#advance(indexes, after, to, count, entries))) return;
        after = to;
      }
      await setImmediate();
    }
    for (const index of indexes) await this.#judge(index);
  }

  /** A page's documents in pieces, each with the entries that one transaction writes. */
  *#steps(
    indexes: readonly BlindIndex[],
    documents: readonly ListedDocument[],
    end: number,
  ): Generator<{ entries: readonly Entry[]; to: number; count: number }> {
    let entries: Entry[] = [];
    let count = 0;
    for (const { metadata, text, position } of documents) {
      const ref = { collection: metadata._collection, id: metadata._id };
      const name = this.#options.cipher.fileName(ref);
      for (const of of entriesOf(indexes, text, this.#rows))
        entries.push(...this.#entriesOf(of, name, metadata._rev));
      count++;
      if (entries.length < ENTRIES_AT_ONCE || position === end) continue;
      yield { entries, to: position, count };
      entries = [];
      count = 0;
    }
    yield { entries, to: end, count };
  }

  #entriesOf(entries: BlindEntries, name: string, rev: string): Entry[] {
    return tokensOf(entries, this.#rows).map((token) => ({ id: entries.index.id, token, name, rev }));
  }

  /** One step of a build. @returns false when another node was faster, or the indexes are not wanted any more. */
  async #advance(
    indexes: readonly BlindIndex[],
    from: number,
    to: number,
    count: number,
    entries: readonly Entry[],
  ): Promise<boolean> {
    const { database, project } = this.#options;
    const ids = indexes.map(({ id }) => id);
    const bytes = (column: 'token' | 'name' | 'rev') =>
      entries.map((entry) => Buffer.from(entry[column], 'hex'));
    const done = await database.transaction(lockOf(project), async (transaction, [head]) => {
      if (isGone(head)) return undefined;
      const advanced = await transaction.query(ADVANCE, [project, ids, from, to, count]);
      if (advanced.length < ids.length) return undefined;
      const columns = [entries.map(({ id }) => id), bytes('token'), bytes('name'), bytes('rev')];
      if (entries.length > 0) await transaction.query(ADD, [project, ...columns]);
      return true;
    });
    return done === true;
  }

  /**
   * An index that has all entries is whole; a unique one, once it is known whether documents of before have equal values. No more come to have some
   * meanwhile: it refuses them.
   */
  async #judge(index: BlindIndex): Promise<void> {
    const { database, project } = this.#options;
    const duplicates = index.spec.unique ? await this.#duplicatesIn(index) : 0;
    if (duplicates === undefined) return;
    const lock = `SELECT index_version FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`;
    await database.transaction(lock, async (transaction, [head]) => {
      if (isGone(head)) return undefined;
      const judged = await transaction.query(JUDGE, [project, index.id, duplicates]);
      if (judged.length === 0) return undefined;
      await transaction.query(CHANGED, [project, Number(head?.[0]?.[0]) + 1]);
      return true;
    });
  }

  /** Undefined when it was stopped. */
  async #duplicatesIn(index: BlindIndex): Promise<number | undefined> {
    const { database, project } = this.#options;
    const always = Buffer.from(alwaysToken(index, this.#rows), 'hex');
    let duplicates = 0;
    for (let after: readonly [Buffer, number] = [Buffer.alloc(0), 0]; !this.#stopped; ) {
      const values = [project, index.id, ...after, always, DUPLICATES_PAGE];
      const [page] = await database.query(DUPLICATES, values);
      if (page === undefined) return duplicates;
      const [token, createdSeq, more] = page as unknown as [Buffer, number, number];
      duplicates += more;
      after = [token, createdSeq];
    }
    return undefined;
  }

  /** Removes a dropped index's entries, a part at a time, then itself. */
  async #remove(id: number): Promise<void> {
    const { database, project } = this.#options;
    for (let removed = ENTRIES_AT_ONCE; removed === ENTRIES_AT_ONCE; ) {
      if (this.#stopped) return;
      removed =
        (await database.transaction(lockOf(project), async (transaction, [head]) => {
          if (isGone(head)) return undefined;
          const [row] = await transaction.query(REMOVE, [project, id, ENTRIES_AT_ONCE]);
          return Number(row?.[0] ?? 0);
        })) ?? 0;
      await setImmediate();
    }
    await database.query(FORGET, [project, id]);
  }
}

interface Entry {
  readonly id: number;
  /** In hex, as are the others. */
  readonly token: string;
  readonly name: string;
  readonly rev: string;
}

/** A project without a head is being deleted: nothing may be added to it. */
function isGone(head: readonly Row[] | undefined): boolean {
  return head?.[0] === undefined;
}
