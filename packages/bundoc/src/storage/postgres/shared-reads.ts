import type { Queryable, Row, Statement } from './database.ts';
import { eachByName, SEALED, small } from './rows.ts';

// That a row is no tombstone is asked of what was found, behind a LIMIT: asked along with the name, it makes the index of creations as good
// as that of names to a planner without statistics, which then reads a project's whole index for one document. And the project must have its head: a
// node may have one open that was moved away, and must not answer from what is left of it.

/** One document needs no bound, and a plain statement is planned and run in less time. */
const GET_ONE: Statement = {
  name: 'bundoc-get-one-4',
  text: `
SELECT name, key_version, rev, sealed, false FROM (
  SELECT name, key_version, ${small('rev')}, ${SEALED} AS sealed, deleted_ms FROM bundoc.documents WHERE project = $1 AND name = $2 LIMIT 1
) AS d WHERE deleted_ms = 0 AND EXISTS (SELECT FROM bundoc.heads WHERE project = $1)`,
};

/** The first document always comes whole; those behind it that there is no room for come without their bytes. */
const GET: Statement = {
  name: 'bundoc-get-5',
  text: `
SELECT name, key_version, rev, CASE WHEN place = 1 OR running <= $3 THEN sealed END, place > 1 AND running > $3 FROM (
  SELECT name, key_version, rev, sealed, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running
  FROM (${eachByName(
    '$2::bytea[]',
    `SELECT name, key_version, ${small('rev')}, ${SEALED} AS sealed, deleted_ms FROM bundoc.documents
     WHERE project = $1 AND documents.name = wanted.one`,
  )}) AS d WHERE deleted_ms = 0 AND EXISTS (SELECT FROM bundoc.heads WHERE project = $1) WINDOW w AS (ROWS UNBOUNDED PRECEDING)
) AS d`,
};

/** Queries of one project that are under way at once, and documents that one asks for. */
const QUERIES_MAX = 2;
const DOCUMENTS_MAX = 32;
/** Sealed bytes that one query brings, or one document: as text on the wire, and while it is read, they take a few times that. */
export const READ_BYTES_MAX = 4_194_304;

export interface SealedRow {
  readonly keyVersion: number;
  readonly rev: Buffer | null;
  readonly sealed: Buffer;
}

/** The last one says that there was no room for the bytes. */
type FoundRow = readonly [Buffer, number, Buffer | null, Buffer | null, boolean];

/**
 * Reads of single documents that wait share a query, as commits share a transaction. A document is read no earlier than it was asked for, so
 * that whoever asks sees all that was acknowledged before.
 */
export class SharedReads {
  readonly #database: Queryable;
  readonly #project: string;
  #waiting = new Map<string, PromiseWithResolvers<SealedRow | undefined>>();
  #running = 0;

  constructor({ database, project }: { readonly database: Queryable; readonly project: string }) {
    this.#database = database;
    this.#project = project;
  }

  /** @param name in hex. */
  get(name: string): Promise<SealedRow | undefined> {
    let read = this.#waiting.get(name);
    if (read === undefined) {
      read = Promise.withResolvers();
      this.#waiting.set(name, read);
      if (this.#running < QUERIES_MAX) {
        this.#running++;
        // What is asked for in the same turn of the event loop goes along.
        setImmediate(() => void this.#run());
      }
    }
    return read.promise;
  }

  async #run(): Promise<void> {
    while (this.#waiting.size > 0) {
      const reads = this.#take();
      try {
        await this.#read(reads);
      } catch (error) {
        for (const { reject } of reads.values()) reject(error);
      }
    }
    this.#running--;
  }

  #query(names: readonly Buffer[]): Promise<readonly Row[]> {
    return names.length === 1
      ? this.#database.query(GET_ONE, [this.#project, names[0]])
      : this.#database.query(GET, [this.#project, names, READ_BYTES_MAX]);
  }

  async #read(reads: Map<string, PromiseWithResolvers<SealedRow | undefined>>): Promise<void> {
    // Nobody joins those that wait for room, so that they all get their turn: each query brings one at least.
    while (reads.size > 0) {
      const names = [...reads.keys()];
      const cut = new Set<string>();
      for (const row of await this.#query(names.map((name) => Buffer.from(name, 'hex')))) {
        const [bytes, keyVersion, rev, sealed, isCut] = row as unknown as FoundRow;
        const name = bytes.toString('hex');
        if (isCut) cut.add(name);
        // What has no bytes, or more than any document, does not open.
        else reads.get(name)?.resolve({ keyVersion, rev, sealed: sealed ?? Buffer.alloc(0) });
      }
      for (const name of names) {
        if (cut.has(name)) continue;
        // Those that were found have their answer already.
        reads.get(name)?.resolve(undefined);
        reads.delete(name);
      }
    }
  }

  #take(): Map<string, PromiseWithResolvers<SealedRow | undefined>> {
    const all = this.#waiting;
    if (all.size <= DOCUMENTS_MAX) {
      this.#waiting = new Map();
      return all;
    }
    const some = new Map(all.entries().take(DOCUMENTS_MAX));
    for (const name of some.keys()) all.delete(name);
    return some;
  }
}
