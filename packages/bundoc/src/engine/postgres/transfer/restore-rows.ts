import type { Clock } from '@bundoc/shared/runtime/clock';
import { type BackupEnd, type RestoreSource, takeAll } from '../../moves/transfer-port.ts';
import { BackupDamaged, ProjectExists } from '../../port/errors.ts';
import { positionAfterLoss } from '../../port/positions.ts';
import { SEAL_LIMITS } from '../../port/seal-budget.ts';
import { formatProjectFile } from '../../projects/project-file.ts';
import type { Database, Queryable, Statement } from '../database/database.ts';
import { readFileRow } from '../rows/file-row.ts';
import { endMark } from '../rows/lost-in-rows.ts';
import { insertProjectRows, raiseKeyVersion } from '../rows/project-rows.ts';
import { verifyRows } from '../verify/verify-rows.ts';
import { writeSealed, writeStoreMetadata } from './import-rows.ts';

const INSERT_FILE: Statement = {
  name: 'bundoc-import-file-1',
  text: `INSERT INTO bundoc.projects (project, file) SELECT $1, $2
         WHERE NOT EXISTS (SELECT FROM bundoc.heads WHERE project = $1) ON CONFLICT (project) DO NOTHING RETURNING 1`,
};
/** A restore may take long, and the project is invisible to others before the commit. */
const NO_IDLE_TIMEOUT = 'SET LOCAL idle_in_transaction_session_timeout = 0';

export interface RestoreRowsOptions extends RestoreSource {
  readonly database: Database;
  readonly clock: Clock;
}

/**
 * Restores a project from a backup into PostgreSQL, beside running nodes, in one checked transaction. As for
 * a restored folder, earlier cursors are rejected and the key is rotated.
 *
 * @throws ProjectExists; BackupDamaged, and those of the database: then there is no project. OutcomeUnknown:
 *   all of it or nothing exists.
 */
export async function restoreProjectInRows(options: RestoreRowsOptions): Promise<BackupEnd> {
  const { file, cipher, changes, database, clock, onProgress } = options;
  const { project } = file;
  const place = { project, cipher };
  await requireFreeRows(database, project);
  const restored = await database.transaction(NO_IDLE_TIMEOUT, async (transaction) => {
    const inserted = await transaction.query(INSERT_FILE, [project, formatProjectFile(file).toString()]);
    if (inserted.length === 0) throw new ProjectExists(`${project} is in the database already`);
    await endMark(transaction, project);
    await insertProjectRows(transaction, project, cipher.version);
    for (const version of cipher.versions) await raiseKeyVersion(transaction, project, version);
    let done = 0;
    const end = await takeAll(changes(), async (some) => {
      const written = { changes: some, idempotencyRecords: [], seq: 0, isUpdate: true };
      await writeSealed(transaction, place, written);
      done += some.length;
      onProgress?.(done);
    });
    const seq = positionAfterLoss(end.lastSeq, clock.now());
    await writeSealed(transaction, place, { changes: [], idempotencyRecords: [], seq });
    const seals = [{ version: cipher.version, count: SEAL_LIMITS.rotateAt }];
    await writeStoreMetadata(transaction, place, { seals, purgedSeq: seq });
    const { findings } = await verifyRows(transaction, project, cipher, () => undefined);
    const [wrong] = findings;
    if (wrong !== undefined) throw new BackupDamaged(`the backup does not hold together: ${wrong.problem}`);
    return end;
  });
  return restored as BackupEnd;
}

/** Requires that the database has room for the project. Marks are removed before, as in a folder. */
async function requireFreeRows(queryable: Queryable, project: string): Promise<void> {
  const { text, marker } = await readFileRow(queryable, project);
  if (text !== undefined || marker !== undefined)
    throw new ProjectExists(`${project} is in the database already`);
}
