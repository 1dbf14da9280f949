import { v7 as uuidv7 } from 'uuid';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import type { ProjectContents, StoredEntry } from '../project-contents.ts';
import type { Statement, Transaction } from './database.ts';
import { writeOfGroup } from './group-rows.ts';
import { insertProjectRows, raiseKeyVersion } from './project-rows.ts';
import { RowCipher } from './row-cipher.ts';

const INSERT_FILE: Statement = {
  name: 'bundoc-import-file-1',
  text: `INSERT INTO bundoc.projects (project, file) SELECT $1, $2
         WHERE NOT EXISTS (SELECT FROM bundoc.heads WHERE project = $1) ON CONFLICT (project) DO NOTHING RETURNING 1`,
};
const SET_SEALS: Statement = {
  name: 'bundoc-import-seals-1',
  text: 'UPDATE bundoc.key_versions SET seals = greatest(seals, $3) WHERE project = $1 AND version = $2',
};
const SET_PURGED: Statement = {
  name: 'bundoc-import-purged-1',
  text: 'UPDATE bundoc.heads SET purged_seq = $2 WHERE project = $1',
};

/** Rows of one statement, and their sealed bytes beyond the first. */
const ROWS_MAX = 500;
const BYTES_MAX = 4_194_304;

export interface ImportedProject {
  readonly project: string;
  /** The text of its project file. */
  readonly file: string;
  readonly cipher: ProjectCipher;
  readonly contents: ProjectContents;
}

/**
 * Takes a project over with its sealed bytes as they are, in one transaction: whole, or not at all.
 *
 * @returns false when the database has it already; nothing was changed then.
 */
export async function importProject(
  transaction: Transaction,
  { project, file, cipher, contents }: ImportedProject,
  onProgress: (done: number, total: number) => void,
): Promise<boolean> {
  const inserted = await transaction.query(INSERT_FILE, [project, file]);
  if (inserted.length === 0) return false;
  await insertProjectRows(transaction, project, cipher.version);
  for (const version of cipher.versions) await raiseKeyVersion(transaction, project, version);
  const writers = new Map(
    cipher.versions.map((version) => [
      version,
      new BatchWriter(transaction, version, { project, cipher, contents }),
    ]),
  );
  let done = 0;
  for await (const entry of contents.entries()) {
    const writer = writers.get(entry.state.keyVersion) ?? writers.get(cipher.version);
    await writer?.add(entry);
    onProgress(++done, contents.size);
  }
  for (const [version, writer] of writers) await writer.finish(version === cipher.version);
  for (const { version, count } of contents.seals)
    await transaction.query(SET_SEALS, [project, version, count]);
  await transaction.query(SET_PURGED, [project, contents.purgedSeq]);
  return true;
}

/** Rows of one key version: a row's state is sealed under the version that its document is. */
class BatchWriter {
  readonly #transaction: Transaction;
  readonly #imported: Omit<ImportedProject, 'file'>;
  readonly #rows: RowCipher;
  readonly #names = new Map<string, Buffer>();
  #batch: StoredEntry[] = [];
  #bytes = 0;

  constructor(transaction: Transaction, version: number, imported: Omit<ImportedProject, 'file'>) {
    this.#transaction = transaction;
    this.#imported = imported;
    this.#rows = new RowCipher(imported.project, imported.cipher, version);
  }

  async add(entry: StoredEntry): Promise<void> {
    this.#batch.push(entry);
    this.#bytes += entry.state.size;
    if (this.#batch.length >= ROWS_MAX || this.#bytes >= BYTES_MAX) await this.#write(false);
  }

  async finish(withUsedKeys: boolean): Promise<void> {
    if (this.#batch.length > 0 || withUsedKeys) await this.#write(withUsedKeys);
  }

  async #write(withUsedKeys: boolean): Promise<void> {
    const { project, cipher, contents } = this.#imported;
    const documents = this.#batch.map(({ state, sealed }) => ({
      // A tombstone may be older than any version that is still live: nothing of it is under that.
      state: { ...state, keyVersion: this.#rows.version },
      former: undefined,
      text: undefined,
      sealed,
    }));
    const group = {
      documents,
      usedKeys: withUsedKeys ? contents.usedKeys : [],
      seq: contents.lastSeq,
    };
    this.#batch = [];
    this.#bytes = 0;
    const place = { project, commitId: uuidv7() };
    const ciphers = { cipher, rows: this.#rows, names: this.#names };
    const { statement, values } = writeOfGroup(group, place, ciphers);
    await this.#transaction.query(statement, values);
  }
}
