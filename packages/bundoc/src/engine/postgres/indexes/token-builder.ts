import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { OwnWork } from '../../../work/work.ts';
import type { DocumentPage, ListedDocument, ListQuery } from '../../port/port.ts';
import type { Database, Row, Statement } from '../database/database.ts';
import { lockOf } from '../rows/project-rows.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { CHANGED, type IndexRow, type IndexRows, toEntries } from './index-rows.ts';

/** Changes nothing when another node was faster. */
const ADVANCE: Statement = {
  name: 'bundoc-advance-tokens-1',
  text: `
UPDATE bundoc.indexes SET built_to = $4, indexed = indexed + $5
WHERE project = $1 AND id = ANY ($2::bigint[]) AND built_to = $3 AND duplicates IS NULL AND NOT dropped RETURNING id`,
};
/**
 * Adds entries of documents that have not changed since they were read. A changed document got its entries
 * from its commit.
 */
const ADD: Statement = {
  name: 'bundoc-add-tokens-1',
  text: `
INSERT INTO bundoc.index_tokens (project, index_id, token, created_seq, name)
SELECT $1, r.index_id, r.token, d.created_seq, d.name
FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[]) AS r(index_id, token, name, rev) CROSS JOIN LATERAL (
  SELECT created_seq, name, rev, deleted_ms FROM bundoc.documents WHERE project = $1 AND documents.name = r.name LIMIT 1
) AS d WHERE d.rev = r.rev AND d.deleted_ms = 0 ON CONFLICT DO NOTHING`,
};
/** Counts, in a page of ordered entries, those with the same token as the one before, and returns its end. */
const DUPLICATES: Statement = {
  name: 'bundoc-duplicates-1',
  text: `
WITH page AS (
  SELECT token, created_seq, row_number() OVER w AS place, coalesce(lag(token) OVER w, $3) = token AS again FROM (
    SELECT token, created_seq FROM bundoc.index_tokens
    WHERE project = $1 AND index_id = $2 AND (token, created_seq) > ($3::bytea, $4::bigint) ORDER BY token, created_seq LIMIT $5
  ) AS e WINDOW w AS (ORDER BY token, created_seq)
)
SELECT token, created_seq, (SELECT count(*) FROM page WHERE again) FROM page ORDER BY place DESC LIMIT 1`,
};
const JUDGE: Statement = {
  name: 'bundoc-judge-index-1',
  text: `
UPDATE bundoc.indexes SET duplicates = $3
WHERE project = $1 AND id = $2 AND duplicates IS NULL AND NOT dropped RETURNING id`,
};
const REMOVE: Statement = {
  name: 'bundoc-remove-tokens-1',
  text: `
WITH gone AS (
  DELETE FROM bundoc.index_tokens WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bundoc.index_tokens WHERE project = $1 AND index_id = $2 LIMIT $3
  )) RETURNING 1
)
SELECT count(*) FROM gone`,
};
const FORGET: Statement = {
  name: 'bundoc-forget-index-1',
  text: 'DELETE FROM bundoc.indexes WHERE project = $1 AND id = $2 AND dropped',
};

/**
 * Limits of one build step: the page it reads, and the entries that one transaction writes or removes, except
 * for those of a single document.
 */
const BUILD_PAGE = { limit: 200, bytesMax: 1_048_576 };
const ENTRIES_AT_ONCE = 2_000;
/** Entries checked for duplicates at a time. */
const DUPLICATES_PAGE = 20_000;

export interface TokenBuilderOptions {
  readonly project: string;
  readonly database: Database;
  readonly cipher: ProjectCipher;
  readonly list: (query: ListQuery) => Promise<DocumentPage>;
  /** Observes every error, and turns it into the error for callers. */
  readonly watched: <T>(work: Promise<T>) => Promise<T>;
  /** Removes the runs of a dropped index. */
  readonly removeRuns: (id: number) => Promise<void>;
  readonly ownWork: OwnWork;
}

/**
 * Gives unique indexes of a project their tokens in the background. It reads documents older than an index in
 * creation order without the project's lock, and adds their tokens under it unless they have changed. It
 * removes the tokens of dropped indexes. Nodes share the work: one of them advances an index, and when it
 * stops, another continues.
 */
export class TokenBuilder {
  readonly #options: TokenBuilderOptions;
  readonly #rows: RowCipher;
  readonly #ownWork: OwnWork;
  /** The progress of builds at the last look: another node is working on those that have advanced since. */
  #seen = new Map<number, number>();
  #work: Promise<void> | undefined;
  #stopped = false;

  constructor(options: TokenBuilderOptions, rows: RowCipher) {
    this.#options = options;
    this.#rows = rows;
    this.#ownWork = options.ownWork;
  }

  /**
   * Continues the remaining work unless it is running. The next call retries what failed.
   *
   * @param done called when nothing is left.
   */
  resume({ byCollection, dropped }: IndexRows, done: () => Promise<void>): void {
    const building = [...byCollection.values()].flat().filter(({ duplicates }) => duplicates === undefined);
    // An index that advanced without this node is being built by another one.
    const own = building.filter(({ id, builtTo }) => (this.#seen.get(id) ?? builtTo) === builtTo);
    this.#seen = new Map(building.map(({ id, builtTo }) => [id, builtTo]));
    if (this.#work !== undefined || this.#stopped || own.length + dropped.length === 0) return;
    this.#work = this.#options
      .watched(this.#run(own, dropped, done))
      .catch(() => undefined)
      .finally(() => {
        this.#work = undefined;
      });
  }

  /** Resolves when no work is running. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** Stops the running work. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  async #run(
    building: readonly IndexRow[],
    dropped: readonly number[],
    done: () => Promise<void>,
  ): Promise<void> {
    // Indexes of a collection with equal progress are built together.
    const groups = Map.groupBy(
      building,
      ({ collection, since, builtTo }) => `${collection} ${since} ${builtTo}`,
    );
    for (const group of groups.values()) await this.#build(group);
    for (const id of dropped) await this.#remove(id);
    if (!this.#stopped) await done();
  }

  async #build(indexes: readonly IndexRow[]): Promise<void> {
    const { collection, since, builtTo } = indexes[0] as IndexRow;
    using work = this.#ownWork('index');
    for (let after = builtTo; after < since; ) {
      if (this.#stopped) return;
      const query = { collection, after, ...BUILD_PAGE };
      const page = await work.outside(() => this.#options.list(query));
      const documents = page.documents.filter(({ position }) => position <= since);
      const isLast = page.next === undefined || page.next >= since;
      for (const step of this.#steps(indexes, documents, isLast ? since : page.next)) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        if (step === undefined) continue;
        const { entries, to, count } = step;
        if (this.#stopped) return;
        if (!(await work.outside(() => this.#advance(indexes, after, to, count, entries)))) return;
        after = to;
      }
    }
    for (const index of indexes) await this.#judge(index);
  }

  /**
   * Splits a page's documents into pieces, each with the entries of one transaction; yields undefined between
   * two documents of a piece.
   */
  *#steps(
    indexes: readonly IndexRow[],
    documents: readonly ListedDocument[],
    end: number,
  ): Generator<{ entries: readonly Entry[]; to: number; count: number } | undefined> {
    let entries: Entry[] = [];
    let count = 0;
    for (const { metadata, text, position } of documents) {
      const ref = { collection: metadata._collection, id: metadata._id };
      const name = this.#options.cipher.fileName(ref);
      for (const of of toEntries(indexes, text, this.#rows))
        entries.push(...of.tokens.map((token) => ({ id: of.index.id, token, name, rev: metadata._rev })));
      count++;
      if (entries.length < ENTRIES_AT_ONCE || position === end) {
        yield undefined;
        continue;
      }
      yield { entries, to: position, count };
      entries = [];
      count = 0;
    }
    yield { entries, to: end, count };
  }

  /** Runs one build step. @returns false when another node was faster, or the indexes were dropped. */
  async #advance(
    indexes: readonly IndexRow[],
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
   * An index is ready when it has all entries; a unique one also needs its duplicate check. New duplicates
   * cannot appear in the meantime, because it already refuses them.
   */
  async #judge(index: IndexRow): Promise<void> {
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
  async #duplicatesIn(index: IndexRow): Promise<number | undefined> {
    const { database, project } = this.#options;
    let duplicates = 0;
    for (let after: readonly [Buffer, number] = [Buffer.alloc(0), 0]; !this.#stopped; ) {
      const values = [project, index.id, ...after, DUPLICATES_PAGE];
      const [page] = await database.query(DUPLICATES, values);
      if (page === undefined) return duplicates;
      const [token, createdSeq, more] = page as unknown as [Buffer, number, number];
      duplicates += more;
      after = [token, createdSeq];
    }
    return undefined;
  }

  /** Removes a dropped index's entries in parts, then the index. */
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
    }
    await this.#options.removeRuns(id);
    if (!this.#stopped) await database.query(FORGET, [project, id]);
  }
}

interface Entry {
  readonly id: number;
  /** In hex, like the others. */
  readonly token: string;
  readonly name: string;
  readonly rev: string;
}

/** A project without a head is being deleted: nothing may be added to it. */
function isGone(head: readonly Row[] | undefined): boolean {
  return head?.[0] === undefined;
}
