import { Batcher, type BatchQueue } from '@bundoc/shared/runtime/batcher';
import { type ShareKey, shareIn } from '@bundoc/shared/shares/share-key';
import { COMMIT_BYTES_MAX, type Position } from '../../port.ts';
import { FairBatches } from '../commit/fair-batches.ts';
import { Gather, inHalves } from '../commit/gather.ts';
import type { Queryable, Row, Statement } from '../database/database.ts';
import { ROW_COLUMNS, small } from '../rows/rows.ts';

/** Statements of small documents that run at once, and documents of each. */
const SMALL_STATEMENTS_MAX = 4;
const SMALL_DOCUMENTS_MAX = 128;
/**
 * Sealed bytes of a small document. A larger one is read by a second statement, in the lane of large
 * documents.
 */
export const INLINE_BYTES_MAX = 65_536;
/** The same for large documents. */
const LARGE_STATEMENTS_MAX = 2;
const LARGE_DOCUMENTS_MAX = 32;
/**
 * Sealed bytes that a statement of large documents returns, unless a single document has more. On the wire,
 * and while the client reads them, they take a few times as much.
 */
export const LARGE_BYTES_MAX = 4_194_304;

/**
 * Rows of two kinds: of each document that is there, with its place in the arrays, and of each project that
 * has its head, which a deletion and a move remove first.
 *
 * The LIMIT keeps each look-up in the primary key, whatever statistics the planner has. The condition on
 * tombstones stands outside of it for the same reason: inside, the index of creations looks as good as that
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

/** Statements that read heads, or changes, that run at once, and projects of each. */
const CHANGE_STATEMENTS_MAX = 2;
const POSITIONS_OF_STATEMENT_MAX = 128;
const CHANGES_OF_STATEMENT_MAX = 16;

const POSITIONS: Statement = {
  name: 'bundoc-positions-1',
  text: 'SELECT project, seq FROM bundoc.heads WHERE project = ANY($1::text[])',
};

/** Heads and changes as of one moment: a position must not be ahead of the changes that were read. */
const CHANGES: Statement = {
  name: 'bundoc-changes-3',
  text: `
SELECT wanted.place, h.seq, h.purged_seq, d.*
FROM unnest((SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::integer[])) WITH ORDINALITY AS wanted (project, after, rows_max, place)
CROSS JOIN LATERAL (SELECT seq, purged_seq FROM bundoc.heads WHERE heads.project = wanted.project LIMIT 1) AS h
LEFT JOIN LATERAL (
  SELECT ${ROW_COLUMNS} FROM bundoc.documents WHERE documents.project = wanted.project AND documents.seq > wanted.after
  ORDER BY documents.seq LIMIT wanted.rows_max
) AS d ON true ORDER BY wanted.place, d.seq`,
};

/** What changed in a project behind a position: so many rows at most. */
export interface WantedChanges {
  readonly project: string;
  readonly after: Position;
  readonly limit: number;
}

export interface FoundChanges {
  readonly seq: Position;
  readonly purgedSeq: Position;
  /** With the columns of `ROW_COLUMNS`, in the order of the commits. */
  readonly rows: readonly Row[];
}

export interface SealedRow {
  readonly keyVersion: number;
  readonly rev: Buffer | null;
  readonly sealed: Buffer;
}

/** A document, or that there is none, or that the project has no head. */
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
  /** Of the first who waits for it. */
  readonly share: ShareKey;
  readonly project: string;
  /** In hex. */
  readonly name: string;
  /** Sealed bytes that the next statement returns of it at most. */
  size: number;
  readonly done: PromiseWithResolvers<FoundRow>;
}

/**
 * Gathers the most frequent reads of all projects of a node into statements. A statement that runs takes no
 * further reads: each caller sees every commit that was acknowledged before its call.
 *
 * Subjects take turns, then the projects of a subject, one document each. Large documents have statements of
 * their own, so that they delay no small ones. Heads, and pages of changes, are gathered in the same way.
 *
 * One class, because each kind of read has its batcher and its statement here.
 */
export class SharedReads {
  readonly #database: Queryable;
  /** Documents whose size is not known yet. */
  readonly #small = new Waiting(SMALL_DOCUMENTS_MAX, Number.POSITIVE_INFINITY);
  readonly #large = new Waiting(LARGE_DOCUMENTS_MAX, LARGE_BYTES_MAX);
  readonly #smallReads = this.#batcherOf(this.#small, SMALL_STATEMENTS_MAX);
  readonly #largeReads = this.#batcherOf(this.#large, LARGE_STATEMENTS_MAX);
  readonly #positions: Gather<string, Position | undefined>;
  readonly #changes: Gather<WantedChanges, FoundChanges | undefined>;

  constructor(database: Queryable) {
    this.#database = database;
    const statementsMax = CHANGE_STATEMENTS_MAX;
    this.#positions = new Gather({
      ask: (projects) => this.#readPositions(projects),
      projectOf: (project) => project,
      ...{ statementsMax, questionsMax: POSITIONS_OF_STATEMENT_MAX },
    });
    this.#changes = new Gather({
      ask: (wanted) => this.#readChanges(wanted),
      projectOf: ({ project }) => project,
      ...{ statementsMax, questionsMax: CHANGES_OF_STATEMENT_MAX },
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
    const wanted = {
      ...{ share: shareIn(project), project, name },
      ...{ size: INLINE_BYTES_MAX, done: Promise.withResolvers<FoundRow>() },
    };
    this.#smallReads.add(wanted);
    return wanted.done.promise;
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
      // A project without changes has one row, of its head alone.
      const changes = found?.filter((row) => row[3] !== null).map((row) => row.slice(3));
      return changes && { seq: Number(seq), purgedSeq: Number(purgedSeq), rows: changes };
    });
  }

  #batcherOf(queue: Waiting, batchesMax: number): Batcher<Wanted> {
    return new Batcher({ queue, batchesMax, isGathering: true, run: (wanted) => this.#read(wanted) });
  }

  #readLater(wanted: Wanted): void {
    const waiting = this.#large.find(wanted.project, wanted.name);
    if (waiting !== undefined) {
      waiting.size = Math.max(waiting.size, wanted.size);
      waiting.done.promise.then(wanted.done.resolve, wanted.done.reject);
      return;
    }
    this.#largeReads.add(wanted);
  }

  /** Never rejects. */
  #read(all: readonly Wanted[]): Promise<void> {
    return inHalves(
      all,
      (some) => this.#readAll(some),
      ({ done }, error) => done.reject(error),
    );
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
    // A row without bytes, or with more than any document has, does not open.
    else wanted.done.resolve({ keyVersion, rev, sealed: sealed ?? Buffer.alloc(0) });
  }
}

/** Documents that no statement reads yet. Nobody asks for the same one twice. */
class Waiting implements BatchQueue<Wanted> {
  readonly #batches: FairBatches<Wanted>;
  readonly #found = new Map<string, Wanted>();

  /** @param bytesMax of all documents that are taken at once; the first is taken whatever it has. */
  constructor(itemsMax: number, bytesMax: number) {
    this.#batches = new FairBatches({ itemsMax, bytesMax, bytesOf: ({ size }) => size });
  }

  get size(): number {
    return this.#batches.size;
  }

  find(project: string, name: string): Wanted | undefined {
    return this.#found.get(placeOf(project, name));
  }

  add(wanted: Wanted): void {
    this.#found.set(placeOf(wanted.project, wanted.name), wanted);
    this.#batches.add(wanted);
  }

  take(): Wanted[] {
    const taken = this.#batches.take();
    for (const { project, name } of taken) this.#found.delete(placeOf(project, name));
    return taken;
  }
}

function placeOf(project: string, name: string): string {
  return `${project}\0${name}`;
}
