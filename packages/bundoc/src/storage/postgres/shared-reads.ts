import type { Database, Statement } from './database.ts';

const GET: Statement = {
  name: 'bundoc-get-1',
  text: `SELECT name, key_version, rev, sealed FROM bundoc.documents
         WHERE project = $1 AND name = ANY ($2::bytea[]) AND deleted_ms = 0`,
};

/** Queries of one project that are under way at once, and documents that one asks for. */
const QUERIES_MAX = 2;
const DOCUMENTS_MAX = 32;

export interface SealedRow {
  readonly keyVersion: number;
  readonly rev: Buffer;
  readonly sealed: Buffer;
}

/**
 * Reads of single documents that wait share a query, as commits share a transaction. A document is read no earlier than it was asked for, so
 * that whoever asks sees all that was acknowledged before.
 */
export class SharedReads {
  readonly #database: Database;
  readonly #project: string;
  #waiting = new Map<string, PromiseWithResolvers<SealedRow | undefined>>();
  #running = 0;

  constructor({ database, project }: { readonly database: Database; readonly project: string }) {
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

  async #read(reads: ReadonlyMap<string, PromiseWithResolvers<SealedRow | undefined>>): Promise<void> {
    const names = [...reads.keys()].map((name) => Buffer.from(name, 'hex'));
    for (const row of await this.#database.query(GET, [this.#project, names])) {
      const [name, keyVersion, rev, sealed] = row as unknown as [Buffer, number, Buffer, Buffer];
      reads.get(name.toString('hex'))?.resolve({ keyVersion, rev, sealed });
    }
    // Those that were found have their answer already.
    for (const { resolve } of reads.values()) resolve(undefined);
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
