import type { Clock } from '@bundoc/shared/runtime/clock';
import { BackupDamaged, ProjectExists } from '../../errors.ts';
import { positionAfterLoss } from '../../positions.ts';
import type { ProjectContents } from '../../project-contents.ts';
import { formatProjectFile } from '../../project-file.ts';
import { SEAL_LIMITS } from '../../seal-budget.ts';
import { type BackupEnd, type RestoreSource, takeAll } from '../../transfer-port.ts';
import type { Database, Queryable } from '../database/database.ts';
import { readFileRow } from '../rows/file-row.ts';
import { verifyRows } from '../verify/verify-rows.ts';
import { importProject } from './import-rows.ts';

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
  const { file, cipher, changes, database, clock, onProgress = () => undefined } = options;
  const { project } = file;
  await requireFreeRows(database, project);
  // Before the database is changed, authenticates the whole backup and finds the last state of each document.
  const last = new Map<string, number>();
  const end = await takeAll(changes(), async (some) => {
    for (const { state } of some) last.set(state.fileName.toString('hex'), state.seq);
  });
  const lastSeq = positionAfterLoss(end.lastSeq, clock.now());
  const contents: ProjectContents = {
    lastSeq,
    purgedSeq: lastSeq,
    seals: [{ version: cipher.version, count: SEAL_LIMITS.rotateAt }],
    idempotencyRecords: [],
    size: last.size,
    async *entries() {
      for await (const some of changes())
        for (const change of some)
          if (last.get(change.state.fileName.toString('hex')) === change.state.seq) yield change;
    },
  };
  const text = formatProjectFile(file).toString();
  await database.transaction(NO_IDLE_TIMEOUT, async (transaction) => {
    const imported = await importProject(transaction, { project, file: text, cipher, contents }, onProgress);
    if (!imported) throw new ProjectExists(`${project} is in the database already`);
    const { findings } = await verifyRows(transaction, project, cipher, () => undefined);
    const [wrong] = findings;
    if (wrong !== undefined) throw new BackupDamaged(`the backup does not hold together: ${wrong.problem}`);
    return true;
  });
  return end;
}

/** Requires that the database has room for the project. Marks are removed before, as in a folder. */
async function requireFreeRows(queryable: Queryable, project: string): Promise<void> {
  const { text, marker } = await readFileRow(queryable, project);
  if (text !== undefined || marker !== undefined)
    throw new ProjectExists(`${project} is in the database already`);
}
