import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import {
  formatStorageFile,
  newStorageFile,
  parseStorageFile,
  type StorageFile,
  type StorageIdentity,
  storageIdMissing,
} from '../../identity/storage-file.ts';
import { OutcomeUnknown } from '../../port/errors.ts';
import type { Database, Statement } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';

const PLACE = 'the row of bundoc.storage';
/** A longer one is read as an empty one, which is damaged: it would exhaust the memory of each node. */
const FILE = `CASE WHEN octet_length(file) > 65536 THEN '' ELSE file END`;
const READ: Statement = {
  name: 'bundoc-read-storage-2',
  text: `SELECT ${FILE} FROM bundoc.storage WHERE one`,
};
const LOCKED: Statement = {
  name: 'bundoc-storage-locked-2',
  text: `SELECT ${FILE} FROM bundoc.storage WHERE one FOR UPDATE`,
};
/** Only in a database without projects. Nodes that start together create one row. */
const MAKE: Statement = {
  name: 'bundoc-make-storage-1',
  text: `INSERT INTO bundoc.storage (one, file) SELECT true, $1
         WHERE NOT EXISTS (SELECT FROM bundoc.projects) AND NOT EXISTS (SELECT FROM bundoc.heads)
         ON CONFLICT (one) DO NOTHING`,
};
const WRITE: Statement = {
  name: 'bundoc-write-storage-1',
  text: 'UPDATE bundoc.storage SET file = $1, changed_at = now() WHERE one',
};
const AGE: Statement = {
  name: 'bundoc-storage-age-1',
  text: 'SELECT extract(epoch FROM now() - changed_at)::bigint FROM bundoc.storage WHERE one',
};

/**
 * Reads the identity of a database, or creates one if it has no projects.
 *
 * @throws StartRefused when it is damaged, or missing beside projects; AppError of the database.
 */
export async function identifyDatabase(database: Database, clock: Clock): Promise<IdentityInRows> {
  const identity = new IdentityInRows(database, clock);
  // Reads first, because a role without the right to insert is enough once the row exists.
  if ((await database.query(READ, [])).length === 0)
    await database.query(MAKE, [formatStorageFile(newStorageFile())]);
  await identity.read();
  return identity;
}

/** The identity of a database that several nodes share. */
export class IdentityInRows implements StorageIdentity {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async read(): Promise<StorageFile> {
    const [row] = await retryUnavailable(this.#clock, () => this.#database.query(READ, []));
    return fileOf(row);
  }

  async change(change: (present: StorageFile) => StorageFile): Promise<StorageFile> {
    try {
      const changed = await retryUnavailable(this.#clock, () =>
        this.#database.transaction('', async (transaction) => {
          const [row] = await transaction.query(LOCKED, []);
          const file = change(fileOf(row));
          await transaction.query(WRITE, [formatStorageFile(file)]);
          return file;
        }),
      );
      if (changed !== undefined) return changed;
    } catch (error) {
      // The caller retries from the current row.
      if (!(error instanceof OutcomeUnknown)) throw error;
    }
    throw new AppError('storage_unavailable', { retryAfterS: 1 });
  }

  /** The age of the last change by any node, seconds of the database's clock. */
  async ageS(): Promise<number> {
    const [row] = await this.#database.query(AGE, []);
    return Number(row?.[0] ?? 0);
  }
}

function fileOf(row: readonly unknown[] | undefined): StorageFile {
  if (row === undefined) throw storageIdMissing(PLACE);
  return parseStorageFile(PLACE, String(row[0]));
}
