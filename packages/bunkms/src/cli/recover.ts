import { createProgress } from '@bundoc/shared/cli/progress';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { CLI_CALLER } from '../records/caller.ts';
import { listOf } from '../recovery/errors.ts';
import { NoDataFolder } from '../recovery/project-keys.ts';
import { type RecoveredProject, recoverKeys } from '../recovery/recover.ts';
import { CliFailure, UsageError } from './errors.ts';
import { silentLogger, withKms } from './open-kms.ts';

export interface RecoverCliOptions {
  /** Bundoc's data folder, or a folder of backups. */
  readonly from: string;
  readonly dryRun?: true;
  readonly json?: true;
}

/**
 * Rebuilds lost keys from the project files in Bundoc's data folder, or in backups. The services may run.
 *
 * @throws CliFailure when some keys were not changed, after recovering all others, or when there is no
 *   project.
 */
export async function recover(environment: Environment, options: RecoverCliOptions): Promise<void> {
  const projects = await withKms(environment, async ({ store, vault, keks, state: { chainKey } }) => {
    using progress = createProgress('{bar} {value}/{total}, {eta_formatted} left');
    // The report replaces the log.
    const logger = silentLogger();
    const deps = { store, vault, keks, chainKey, clock: systemClock, logger, caller: CLI_CALLER };
    const all: RecoveredProject[] = [];
    try {
      for await (const project of recoverKeys(deps, options.from, {
        dryRun: options.dryRun === true,
        onProgress: (done, total) => progress.show(done, total),
      }))
        all.push(project);
    } catch (error) {
      throw error instanceof NoDataFolder ? new UsageError(error.message) : error;
    }
    return all;
  });
  if (projects.length === 0) throw new CliFailure(`${options.from} has no project: no key was recovered`);
  if (options.json) console.log(JSON.stringify({ dry_run: options.dryRun === true, projects }));
  else for (const project of projects) console.log(formatLine(project, options.dryRun === true));
  fail(projects);
}

function formatLine(
  { project, key = '', outcome, state, versions = [], lost_versions: lost = [], problem }: RecoveredProject,
  isDryRun: boolean,
): string {
  const words = [
    project,
    key,
    isDryRun && outcome === 'recovered' ? 'would recover' : outcome,
    ...(state === undefined ? [] : [state]),
    ...(versions.length === 0 ? [] : [`versions ${versions.join(',')}`]),
    ...(lost.length === 0 ? [] : [`lost versions ${lost.join(',')}`]),
    ...(problem === undefined ? [] : [problem]),
  ];
  return words.join('  ');
}

function fail(projects: readonly RecoveredProject[]): void {
  const back = projects.filter(({ outcome, problem }) => outcome === 'deleted' && problem !== undefined);
  if (back.length > 0)
    throw new CliFailure(
      `these projects have no project file and a marker that they were deleted, but their keys exist: ${listOf(back.map(({ project }) => project))}; a marker proves nothing: find out who deleted them before you destroy a key`,
    );
  const of = (...outcomes: RecoveredProject['outcome'][]) =>
    projects.filter(({ outcome }) => outcomes.includes(outcome)).map(({ project }) => project);
  const others = of('conflict', 'unreadable');
  if (others.length > 0)
    throw new CliFailure(`the keys of these projects are not recovered: ${listOf(others)}`);
}
