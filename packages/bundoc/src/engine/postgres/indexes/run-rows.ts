import type { Queryable, Row, Statement } from '../database/database.ts';
import { decodeManifest, encodeManifest, type Manifest } from '../order/manifest.ts';
import { PAGE_BYTES } from '../order/page.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import { orUndefined } from '../rows/rows.ts';
import { IS_LEFT } from './index-rows.ts';

/** How long a node keeps the work on an index without a sign of life. */
const WORK_S = 10;
/** Pages that one statement removes. */
const REMOVED_AT_ONCE = 500;

const READ: Statement = {
  name: 'bundoc-read-runs-1',
  text: `
SELECT i.runs_version, i.runs_key_version, i.runs, i.runs_indexed IS NULL, i.since, h.seq
FROM bundoc.heads AS h JOIN bundoc.indexes AS i ON i.project = h.project WHERE h.project = $1 AND i.id = $2 AND NOT i.dropped`,
};
/** Only one node works on an index at a time. A time further ahead is not one that a node has set. */
const TAKE_WORK: Statement = {
  name: 'bundoc-take-work-on-runs-1',
  text: `
UPDATE bundoc.indexes SET worked_until = now() + interval '${WORK_S} seconds', worked_by = $3
WHERE project = $1 AND id = $2 AND NOT dropped
  AND worked_until NOT BETWEEN now() AND now() + interval '${2 * WORK_S} seconds' RETURNING id`,
};
const KEEP_WORK: Statement = {
  name: 'bundoc-keep-work-on-runs-1',
  text: `
UPDATE bundoc.indexes SET worked_until = now() + interval '${WORK_S} seconds'
WHERE project = $1 AND id = $2 AND NOT dropped AND worked_by = $3 RETURNING id`,
};
const END_WORK: Statement = {
  name: 'bundoc-end-work-on-runs-1',
  text: `UPDATE bundoc.indexes SET worked_until = '-infinity' WHERE project = $1 AND id = $2 AND worked_by = $3`,
};
/**
 * Pages of a new run. The lock on the index's row keeps them from being added after those of a dropped index
 * or a deleted project were removed: that row goes first.
 */
const ADD_PAGES: Statement = {
  name: 'bundoc-add-index-pages-1',
  text: `
WITH index AS (
  SELECT id FROM bundoc.indexes WHERE project = $1 AND id = $2 AND NOT dropped AND worked_by = $6 FOR NO KEY UPDATE
), working AS (
  UPDATE bundoc.indexes AS i SET worked_until = now() + interval '${WORK_S} seconds' FROM index
  WHERE i.project = $1 AND i.id = index.id RETURNING i.id
), run AS (
  INSERT INTO bundoc.index_runs AS r (project, index_id, run) SELECT $1, id, $3 FROM index
  ON CONFLICT (project, index_id, run) DO UPDATE SET left_at = now()
), page AS (
  INSERT INTO bundoc.index_pages (project, id, run, sealed)
  SELECT $1, p.id, $3, substr($5::bytea, 1 + ${PAGE_BYTES} * (p.place::integer - 1), ${PAGE_BYTES})
  FROM index CROSS JOIN unnest($4::bigint[]) WITH ORDINALITY AS p(id, place)
)
SELECT id FROM working`,
};
/** Gives an index other runs, if nobody else has done so. */
const SWAP: Statement = {
  name: 'bundoc-swap-runs-1',
  text: `
WITH swapped AS (
  UPDATE bundoc.indexes SET runs_version = $3 + 1, runs_key_version = $4, runs = $5, runs_indexed = $6, pages = $7, as_of = $9,
    worked_until = now() + interval '${WORK_S} seconds'
  WHERE project = $1 AND id = $2 AND runs_version = $3 AND NOT dropped RETURNING id
), used AS (
  UPDATE bundoc.index_runs AS r SET left_at = CASE WHEN run = ANY ($8::bytea[]) THEN NULL ELSE now() END FROM swapped
  WHERE r.project = $1 AND r.index_id = swapped.id AND (left_at IS NULL) <> (run = ANY ($8::bytea[]))
)
SELECT id FROM swapped`,
};
/** Gives an index no runs: they are built again, of the documents up to the last commit. */
const RESET: Statement = {
  name: 'bundoc-reset-runs-1',
  text: `
WITH reset AS (
  UPDATE bundoc.indexes AS i SET runs_version = greatest($3, $4::bigint) + 1, runs_key_version = NULL, runs = NULL, runs_indexed = 0, pages = 0, as_of = 0,
    since = h.seq
  FROM bundoc.heads AS h WHERE i.project = $1 AND i.id = $2 AND i.runs_version = $3 AND NOT i.dropped AND h.project = $1 RETURNING i.id
), left_runs AS (
  UPDATE bundoc.index_runs AS r SET left_at = now() FROM reset
  WHERE r.project = $1 AND r.index_id = reset.id AND left_at IS NULL
)
SELECT id FROM reset`,
};
const PAGES: Statement = {
  name: 'bundoc-index-pages-1',
  text: `
SELECT p.id, p.run, CASE WHEN octet_length(p.sealed) = ${PAGE_BYTES} THEN p.sealed END
FROM unnest($2::bigint[]) AS w(page) CROSS JOIN LATERAL (
  SELECT * FROM bundoc.index_pages WHERE project = $1 AND id = w.page LIMIT 1
) AS p`,
};
const LEFT: Statement = {
  name: 'bundoc-left-runs-1',
  text: `SELECT run FROM bundoc.index_runs WHERE project = $1 AND index_id = $2 AND ($3 OR ${IS_LEFT})`,
};
const REMOVE_PAGES: Statement = {
  name: 'bundoc-remove-index-pages-1',
  text: `
WITH gone AS (
  DELETE FROM bundoc.index_pages WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bundoc.index_pages WHERE project = $1 AND run = $2 LIMIT ${REMOVED_AT_ONCE}
  )) RETURNING 1
)
SELECT count(*) FROM gone`,
};
const REMOVE_RUN: Statement = {
  name: 'bundoc-remove-index-run-1',
  text: 'DELETE FROM bundoc.index_runs WHERE project = $1 AND index_id = $2 AND run = $3',
};

/** A page of a run, as it is stored. */
export interface StoredPage {
  readonly id: number;
  /** In hex. */
  readonly run: string;
  /** Null for bytes of another length. */
  readonly sealed: Buffer | null;
}

/** The runs of an index as they are stored. */
export interface StoredRuns {
  /** Never used again for other runs. */
  readonly version: number;
  /** Undefined before the first. */
  readonly keyVersion: number | undefined;
  /** Undefined before the first, and when they do not open. */
  readonly manifest: Manifest | undefined;
  readonly isDamaged: boolean;
  /** Whether answers may use them. */
  readonly isWhole: boolean;
  /** Commits after this position have written the keys of the index. */
  readonly since: number;
  /** The last commit of the project. */
  readonly seq: number;
}

/** The rows of one index's runs. Every method throws the errors of the database. */
export class RunRows {
  readonly #database: Queryable;
  readonly #project: string;
  readonly #id: number;
  readonly #rows: RowCipher;
  readonly #worker: string;

  /** @param worker the UUID of the worker, for its turn. */
  constructor(database: Queryable, project: string, id: number, rows: RowCipher, worker: string) {
    this.#database = database;
    this.#project = project;
    this.#id = id;
    this.#rows = rows;
    this.#worker = worker;
  }

  /** Undefined for an index that is gone. @throws VersionUnknown. */
  async read(): Promise<StoredRuns | undefined> {
    const [row] = await this.#query(READ);
    if (row === undefined) return undefined;
    const [version, keyVersion, sealed, isWhole, since, seq] = row as unknown as [
      number,
      number | null,
      Buffer | null,
      boolean,
      number,
      number,
    ];
    const manifest = openManifest(this.#rows, this.#id, { version, keyVersion, sealed });
    const isDamaged = sealed === null ? isWhole : manifest === undefined;
    return { version, keyVersion: keyVersion ?? undefined, manifest, isDamaged, isWhole, since, seq };
  }

  /** Whether this node may work on the runs now, for 10 s after its last sign of life. */
  async takeWork(): Promise<boolean> {
    return (await this.#query(TAKE_WORK, this.#worker)).length > 0;
  }

  /** A sign of life. @returns false when another node works on them, or the index is gone. */
  async keepWork(): Promise<boolean> {
    return (await this.#query(KEEP_WORK, this.#worker)).length > 0;
  }

  async endWork(): Promise<void> {
    await this.#query(END_WORK, this.#worker);
  }

  /** Adds pages to a new run. @returns false when another node works on them, or the index is gone. */
  async addPages(
    run: string,
    pages: readonly { readonly id: number; readonly sealed: Buffer }[],
  ): Promise<boolean> {
    const ids = pages.map(({ id }) => id);
    const bytes = Buffer.concat(pages.map(({ sealed }) => sealed));
    return (await this.#query(ADD_PAGES, Buffer.from(run, 'hex'), ids, bytes, this.#worker)).length > 0;
  }

  /**
   * Replaces the runs. Without a transaction, not the first time that they are whole.
   *
   * @param indexed documents in unfinished runs; undefined for whole ones.
   * @returns false when another node was faster, or the index is gone.
   */
  async swap(version: number, manifest: Manifest, indexed: number | undefined): Promise<boolean> {
    const { version: keyVersion } = this.#rows;
    const sealed = this.#rows.sealRuns(this.#id, version + 1, encodeManifest(manifest));
    const pages = manifest.runs.reduce((sum, { bytes }) => sum + bytes / PAGE_BYTES, 0);
    const runs = manifest.runs.map(({ id }) => Buffer.from(id, 'hex'));
    return (
      (await this.#query(SWAP, version, keyVersion, sealed, indexed ?? null, pages, runs, manifest.asOf))
        .length > 0
    );
  }

  /** Some pages; damaged and missing ones are left out. */
  async pages(ids: readonly number[]): Promise<readonly StoredPage[]> {
    const found = await this.#database.query(PAGES, [this.#project, ids.toSorted((a, b) => a - b)]);
    return found.map(([id, run, sealed]) => ({
      id: id as number,
      run: (run as Buffer).toString('hex'),
      sealed: sealed as Buffer | null,
    }));
  }

  /** Begins the index again after damage. @param known a version that some node knows: later ones follow. */
  async reset(version: number, known: number): Promise<boolean> {
    return (await this.#query(RESET, version, known)).length > 0;
  }

  /** Runs that nobody reads any more. @param all also those that somebody may read. */
  async left(all: boolean): Promise<readonly Buffer[]> {
    return (await this.#query(LEFT, all)).map(([run]) => run as Buffer);
  }

  /** Removes some pages of a run, and then the run. @returns whether it is gone. */
  async removeSome(run: Buffer): Promise<boolean> {
    const [row] = await this.#database.query(REMOVE_PAGES, [this.#project, run]);
    if (Number(row?.[0]) === REMOVED_AT_ONCE) return false;
    await this.#query(REMOVE_RUN, run);
    return true;
  }

  #query(statement: Statement, ...values: readonly unknown[]): Promise<readonly Row[]> {
    return this.#database.query(statement, [this.#project, this.#id, ...values]);
  }
}

export interface SealedRuns {
  readonly version: number;
  readonly keyVersion: number | null;
  readonly sealed: Buffer | null;
}

/** Undefined without runs, and for bytes that do not open. @throws VersionUnknown. */
export function openManifest(
  rows: RowCipher,
  id: number,
  { version, keyVersion, sealed }: SealedRuns,
): Manifest | undefined {
  if (sealed === null || keyVersion === null || version < 0) return undefined;
  return orUndefined(() => decodeManifest(rows.openRuns(id, version, keyVersion, sealed)));
}
