import { AppError } from '@bundoc/shared/contract/app-error';
import type { KeyService } from '../../../kms/port.ts';
import type { OnProgress, ProjectStats, StatsOutcome } from '../../port/reports.ts';
import { findingOf, type VerifiedProject } from '../../port/reports.ts';
import { openCipher, parseProjectFile } from '../../projects/project-file.ts';
import { leasing } from '../../projects/project-keys.ts';
import type { Connections, Statement } from '../database/database.ts';
import { readFileRow } from '../rows/file-row.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../verify/verify-rows.ts';

/** What a tool needs to work on a project in the database, with or without running nodes. */
export interface ProjectInRows {
  readonly project: string;
  readonly database: Connections;
  readonly keys: Pick<KeyService, 'exportKey'>;
}

const STATS: Statement = {
  name: 'bundoc-stats-1',
  text: `
SELECT (SELECT count(*) FROM bundoc.documents WHERE project = $1 AND deleted_ms > 0),
  (SELECT coalesce(sum(documents), 0)::bigint FROM bundoc.collections WHERE project = $1),
  (SELECT count(*) FROM bundoc.collections WHERE project = $1 AND documents > 0),
  (SELECT coalesce(sum(bytes), 0)::bigint FROM bundoc.collections WHERE project = $1),
  (SELECT seq FROM bundoc.heads WHERE project = $1)`,
};

/** Decrypts and checks everything in a project, in one snapshot; others may write at the same time. */
export async function verifyProjectInRows(
  { project, database, keys }: ProjectInRows,
  onProgress: OnProgress,
): Promise<VerifiedProject> {
  try {
    const { text } = await readFileRow(database, project);
    if (text === undefined)
      throw new AppError('project_damaged', { cause: new Error('there is no project file') });
    const file = parseProjectFile(project, Buffer.from(text));
    const cipher = openCipher(file, await leasing(project, keys)(file));
    const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
      verifyRows(transaction, project, cipher, onProgress),
    );
    return { project, documents: verified?.documents ?? 0, findings: verified?.findings ?? [] };
  } catch (error) {
    if (error instanceof AppError) return { project, documents: 0, findings: [findingOf(error)] };
    throw error;
  }
}

/** The totals of a project, from its counts. Nothing is decrypted, so no key is needed. */
export async function statsOfProjectInRows({
  project,
  database,
}: Omit<ProjectInRows, 'keys'>): Promise<StatsOutcome> {
  try {
    const { text } = await readFileRow(database, project);
    const { versions } = parseProjectFile(project, Buffer.from(String(text)));
    const [counts] = await database.query(STATS, [project]);
    const [tombstones, documents, collections, sealedBytes, lastSeq] = counts as unknown as number[];
    const stats = { documents, tombstones, collections, sealedBytes, lastSeq } as Omit<
      ProjectStats,
      'keyVersions'
    >;
    return { project, ...stats, keyVersions: versions.map(({ version }) => version) };
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return { project, error: error.message };
  }
}
