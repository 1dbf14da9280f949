import { rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Environment } from '@bundoc/shared/config';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { readConfig } from '../config.ts';
import { readProjectRow } from '../project/project-in-rows.ts';
import { type ProjectPlace, readProject } from '../project/project-reader.ts';
import { verifyProject } from '../project/verify-project.ts';
import { makeDirectoryDurably } from '../storage/embedded/disk.ts';
import { contentsOfFolder } from '../storage/embedded/folder-contents.ts';
import { importFolder } from '../storage/embedded/import-folder.ts';
import type { Finding, OnProgress } from '../storage/embedded/verify.ts';
import type { Database } from '../storage/postgres/database.ts';
import { importProject } from '../storage/postgres/import-rows.ts';
import { deleteProjectRows, lockOf } from '../storage/postgres/project-rows.ts';
import { contentsOfRows } from '../storage/postgres/rows-contents.ts';
import { verifyRows } from '../storage/postgres/verify-rows.ts';
import type { PostgresConfig } from '../storage-config.ts';
import { CannotRun } from './errors.ts';
import { withData, withNewProject } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { createProgress } from './progress.ts';

/** Where folders of projects go that were moved away: out of the service's sight, and nowhere else. */
const MOVED_FOLDER = 'moved';
/** A copy takes its time; the project is locked meanwhile, and whoever writes to it is told to come back. */
const NO_HURRY = 'SET LOCAL idle_in_transaction_session_timeout = 0';

/**
 * Moves a project between the data folder and PostgreSQL: sealed bytes as they are, opened and checked where they came before they are gone where they
 * were. The place that is left is what BUNDOC_STORAGE names.
 *
 * @throws CannotRun.
 */
export async function move(
  environment: Environment,
  named: string,
  { to }: { readonly to: string },
): Promise<void> {
  const [here, there] = [readConfig(environment), readConfig({ ...environment, BUNDOC_STORAGE: to })];
  const project = projectIdSchema.safeParse(named).data;
  if (project === undefined) throw new CannotRun(`"${named}" is no project id`);
  const dataDir = resolve(here.dataDir);
  if (here.storage.kind === 'files' && there.storage.kind === 'postgres')
    await toDatabase(environment, project, there.storage, dataDir);
  else if (here.storage.kind === 'postgres' && there.storage.kind === 'files')
    await toFolder({ ...environment, BUNDOC_STORAGE: to }, project, here.storage);
  else throw new CannotRun('a project is moved from files to postgres://… or from there to files');
}

async function toDatabase(environment: Environment, project: string, to: PostgresConfig, dataDir: string) {
  await withData(environment, project, async ({ projects: [place] }) => {
    if (place === undefined) throw new CannotRun(`there is no project ${project}`);
    using progress = createProgress();
    const documents = await withDatabase(to, (database) => bringIn(place, database, progress.of(project)));
    const kept = await putAway(place, dataDir);
    console.error(
      `bundoc: ${documents} documents of ${project} are in ${to.place}; the folder is kept as ${kept}`,
    );
  });
}

/** @returns how many documents were brought in, and opened there. */
async function bringIn(place: ProjectPlace, database: Database, onProgress: OnProgress): Promise<number> {
  const { project } = place;
  const read = await readProject(place);
  requireSound(project, read.findings);
  const { cipher } = read.place;
  const imported = {
    project,
    file: read.content.toString(),
    cipher,
    contents: await contentsOfFolder(read.place),
  };
  const verified = await database.transaction(NO_HURRY, async (transaction) => {
    if (!(await importProject(transaction, imported, onProgress)))
      throw new CannotRun(`${project} is in the database already`);
    const found = await verifyRows(transaction, project, cipher, onProgress);
    requireSound(project, found.findings);
    return found;
  });
  return verified?.documents ?? 0;
}

async function toFolder(environment: Environment, project: string, from: PostgresConfig): Promise<void> {
  await withNewProject(environment, project, async (target, place) => {
    using progress = createProgress();
    const documents = await withDatabase(from, (database) =>
      database.transaction(`${NO_HURRY};${lockOf(project)}`, async (transaction, [, head]) => {
        if (head?.[0] === undefined) throw new CannotRun(`there is no project ${project}`);
        const { text, cipher } = await readProjectRow(transaction, place);
        requireSound(
          project,
          (await verifyRows(transaction, project, cipher, progress.of(project))).findings,
        );
        const contents = await contentsOfRows(transaction, project, cipher);
        await importFolder({ ...place, cipher }, text, contents, progress.of(project));
        const verified = await verifyProject(place, progress.of(project));
        requireSound(project, verified.findings);
        // In sight of the service, and durable, before it is gone where it was.
        await rename(place.directory, target);
        await place.disk.syncDirectory(join(target, '..'));
        await deleteProjectRows(transaction, project);
        return verified.documents;
      }),
    );
    console.error(
      `bundoc: ${documents} documents of ${project} are in ${target}, and no longer in ${from.place}`,
    );
  });
}

function requireSound(project: string, [wrong]: readonly Finding[]): void {
  if (wrong !== undefined)
    throw new CannotRun(`${project} cannot be moved as it is: ${wrong.part} ${wrong.problem}`);
}

async function putAway({ project, directory, disk }: ProjectPlace, dataDir: string): Promise<string> {
  const moved = join(dataDir, MOVED_FOLDER);
  await makeDirectoryDurably(disk, moved);
  const kept = join(moved, `${project}-${new Date().toISOString().replaceAll(/[:.]/g, '')}`);
  await rename(directory, kept);
  for (const folder of [moved, join(dataDir, PROJECTS_FOLDER)]) await disk.syncDirectory(folder);
  return kept;
}
