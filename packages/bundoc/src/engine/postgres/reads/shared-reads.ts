import { Batcher, type BatcherOptions } from '@bundoc/shared/runtime/batcher';
import { type ShareKey, shareIn } from '@bundoc/shared/shares/share-key';
import { COMMIT_BYTES_MAX, type Position } from '../../port/port.ts';
import { Gather, inHalves } from '../commit/gather.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { ROW_COLUMNS, small } from '../rows/rows.ts';
import { LargeReads } from './large-reads.ts';

/** Concurrent statements for small documents, and documents in each. */
const SMALL_STATEMENTS_MAX = 4;
const SMALL_DOCUMENTS_MAX = 128;
/**
 * Maximum sealed bytes of a small document. A larger one is read by a second statement, in the lane of large
 * documents.
 */
export const INLINE_BYTES_MAX = 65_536;
/** The same for large documents. */
const LARGE_STATEMENTS_MAX = 2;

/**
 * Returns two kinds of rows. One kind is for each existing document, with its index in the arrays. The other
 * is for each project with a head, which a deletion and a move remove first.
 *
 * The condition on tombstones is outside of the lookup: inside, the index of creations looks as good as that
 * of names. The sub-selects hide the length of the arrays, so that one generic plan serves all.
 */
const READ: Statement = {
  name: 'bundoc-read-2',
  text: `
SELECT wanted.place, d.key_version, d.rev, CASE WHEN d.size <= wanted.bytes_max THEN d.sealed END, d.size, NULL AS project
FROM unnest((SELECT $1::text[]), (SELECT $2::bytea[]), (SELECT $3::integer[])) WITH ORDINALITY AS wanted (project, name, bytes_max, place)
CROSS JOIN LATERAL (
  SELECT key_version, ${small('rev')}, sealed, coalesce(octet_length(sealed), 0) AS size, deleted_ms
  FROM bundoc.documents WHERE documents.project = wanted.project AND documents.name = wanted.name LIMIT 1
) AS d WHERE d.deleted_ms = 0
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, project FROM bundoc.heads WHERE project = ANY($4::text[])`,
};

/** Concurrent statements for heads or changes, and projects in each. */
const CHANGE_STATEMENTS_MAX = 2;
const POSITIONS_OF_STATEMENT_MAX = 128;
const CHANGES_OF_STATEMENT_MAX = 16;

const POSITIONS: Statement = {
  name: 'bundoc-positions-1',
  text: 'SELECT project, seq FROM bundoc.heads WHERE project = ANY($1::text[])',
};

/**
 * Heads and changes in one snapshot: a position must not be ahead of the changes that were read. The index of
 * changes has a condition, so that lookups by name cannot use it. The statement repeats the condition.
 */
const CHANGES: Statement = {
  name: 'bundoc-changes-4',
  text: `
SELECT wanted.place, h.seq, h.purged_seq, d.*
FROM unnest((SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::integer[])) WITH ORDINALITY AS wanted (project, after, rows_max, place)
CROSS JOIN LATERAL (SELECT seq, purged_seq FROM bundoc.heads WHERE heads.project = wanted.project LIMIT 1) AS h
LEFT JOIN LATERAL (
  SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE documents.project = wanted.project AND documents.seq > wanted.after AND documents.seq > 0
  ORDER BY documents.seq LIMIT wanted.rows_max
) AS d ON true ORDER BY wanted.place, d.seq`,
};

/** Wants up to `limit` changes of a project after a position. */
export interface WantedChanges {
  readonly project: string;
  readonly after: Position;
  readonly limit: number;
}

export interface FoundChanges {
  readonly seq: Position;
  readonly purgedSeq: Position;
  /** With the columns of `ROW_COLUMNS`, in commit order. */
  readonly rows: readonly Row[];
}

export interface SealedRow {
  readonly keyVersion: number;
  readonly rev: Buffer | null;
  readonly sealed: Buffer;
}

/** A document; `absent` without one; `gone` for a project without a head. */
export type FoundRow = SealedRow | 'absent' | 'gone';

type DocumentRow = readonly [
  place: number,
  keyVersion: number,
  rev: Buffer | null,
  sealed: Buffer | null,
  size: number,
];

/** A document that callers wait for. */
interface Wanted {
  /** The share of its first caller. */
  readonly share: ShareKey;
  readonly project: string;
  /** In hex. */
  readonly name: string;
  /** Maximum sealed bytes of it that the next statement returns. */
  size: number;
  readonly done: PromiseWithResolvers<FoundRow>;
}

/**
 * Gathers the most frequent reads of all projects of a node into statements. A running statement accepts no
 * further reads, so each caller sees every commit that was acknowledged before its call.
 *
 * Reads are served in the order of arrival. Large documents have separate statements, so that they do not
 * delay small ones. Heads and pages of changes are gathered like small documents.
 */
export class SharedReads {
  readonly #database: Queryable;
  /** Documents of unknown size. */
  readonly #small = this.#lane(SMALL_DOCUMENTS_MAX, SMALL_STATEMENTS_MAX);
  readonly #large = this.#lane(new LargeReads<Wanted>(), LARGE_STATEMENTS_MAX);
  readonly #positions: Gather<string, Position | undefined>;
  readonly #changes: Gather<WantedChanges, FoundChanges | undefined>;

  constructor(database: Queryable) {
    this.#database = database;
    const statementsMax = CHANGE_STATEMENTS_MAX;
    this.#positions = new Gather({
      ask: (projects) => this.#readPositions(projects),
      statementsMax,
      questionsMax: POSITIONS_OF_STATEMENT_MAX,
    });
    this.#changes = new Gather({
      ask: (wanted) => this.#readChanges(wanted),
      statementsMax,
      questionsMax: CHANGES_OF_STATEMENT_MAX,
    });
  }

  /** @returns undefined for a project without a head. @throws AppError of the database. */
  position(project: string): Promise<Position | undefined> {
    return this.#positions.ask(project);
  }

  /** @returns undefined for a project without a head. @throws AppError of the database. */
  changes(wanted: WantedChanges): Promise<FoundChanges | undefined> {
    return this.#changes.ask(wanted);
  }

  /**
   * @param name in hex.
   * @throws AppError of the database.
   */
  get(project: string, name: string): Promise<FoundRow> {
    const waiting = this.#small.find(project, name);
    if (waiting !== undefined) return waiting.done.promise;
    const done = Promise.withResolvers<FoundRow>();
    this.#small.add({ share: shareIn(project), project, name, size: INLINE_BYTES_MAX, done });
    return done.promise;
  }

  async #readPositions(projects: readonly string[]): Promise<(Position | undefined)[]> {
    const rows = await this.#database.query(POSITIONS, [[...new Set(projects)]]);
    const positions = new Map(rows as unknown as readonly [string, Position][]);
    return projects.map((project) => positions.get(project));
  }

  async #readChanges(wanted: readonly WantedChanges[]): Promise<(FoundChanges | undefined)[]> {
    const rows = await this.#database.query(CHANGES, [
      wanted.map(({ project }) => project),
      wanted.map(({ after }) => after),
      wanted.map(({ limit }) => limit),
    ]);
    const byPlace = Map.groupBy(rows, ([place]) => place);
    return wanted.map((_, at) => {
      const found = byPlace.get(at + 1);
      const [, seq, purgedSeq] = found?.[0] ?? [];
      // A project without changes has one row with only its head.
      const changes = found?.filter((row) => row[3] !== null).map((row) => row.slice(3));
      return changes && { seq: Number(seq), purgedSeq: Number(purgedSeq), rows: changes };
    });
  }

  /** Documents that wait for a statement, each only once. */
  #lane(queue: BatcherOptions<Wanted>['queue'], batchesMax: number) {
    const waiting = new Map<string, Wanted>();
    const run = (all: readonly Wanted[]) => {
      for (const { project, name } of all) waiting.delete(toReadKey(project, name));
      return inHalves(
        all,
        (some) => this.#readAll(some),
        ({ done }, error) => done.reject(error),
      );
    };
    const batcher = new Batcher<Wanted>({ queue, batchesMax, isGathering: true, run });
    return {
      find: (project: string, name: string) => waiting.get(toReadKey(project, name)),
      add: (wanted: Wanted) => {
        waiting.set(toReadKey(wanted.project, wanted.name), wanted);
        batcher.add(wanted);
      },
    };
  }

  #readLater(wanted: Wanted): void {
    const waiting = this.#large.find(wanted.project, wanted.name);
    if (waiting !== undefined) {
      waiting.size = Math.max(waiting.size, wanted.size);
      waiting.done.promise.then(wanted.done.resolve, wanted.done.reject);
      return;
    }
    this.#large.add(wanted);
  }

  async #readAll(all: readonly Wanted[]): Promise<void> {
    const rows = await this.#database.query(READ, [
      all.map(({ project }) => project),
      all.map(({ name }) => Buffer.from(name, 'hex')),
      all.map(({ size }) => size),
      [...new Set(all.map(({ project }) => project))],
    ]);
    const present = new Set<unknown>();
    const found: DocumentRow[] = [];
    for (const row of rows) {
      const [place, , , , , project] = row;
      if (place === null) present.add(project);
      else found[Number(place) - 1] = row as unknown as DocumentRow;
    }
    for (const [at, wanted] of all.entries())
      if (present.has(wanted.project)) this.#answer(wanted, found[at]);
      else wanted.done.resolve('gone');
  }

  #answer(wanted: Wanted, row: DocumentRow | undefined): void {
    if (row === undefined) {
      wanted.done.resolve('absent');
      return;
    }
    const [, keyVersion, rev, sealed, size] = row;
    if (size > wanted.size && size <= COMMIT_BYTES_MAX) {
      // It is large, or has grown since the last statement.
      wanted.size = size;
      this.#readLater(wanted);
    }
    // An undecryptable document: the row has no bytes, or more than any document.
    else wanted.done.resolve({ keyVersion, rev, sealed: sealed ?? Buffer.alloc(0) });
  }
}

function toReadKey(project: string, name: string): string {
  return `${project}\0${name}`;
}
