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
 * @throws CliFailure when some keys were not changed or are lost, after recovering all others, or when there
 *   is no project.
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
  if (!projects.some(({ project }) => project !== undefined))
    throw new CliFailure(`${options.from} has no project: no key was recovered`);
  if (options.json) console.log(JSON.stringify({ dry_run: options.dryRun === true, projects }));
  else for (const project of projects) console.log(formatLine(project, options.dryRun === true));
  fail(projects, options.from);
}

function formatLine(
  { project, key = '', outcome, state, versions = [], lost_versions: lost = [], problem }: RecoveredProject,
  isDryRun: boolean,
): string {
  const words = [
    ...(project === undefined ? [] : [project]),
    key,
    isDryRun && outcome === 'recovered' ? 'would recover' : outcome,
    ...(state === undefined ? [] : [state]),
    ...(versions.length === 0 ? [] : [`versions ${versions.join(',')}`]),
    ...(lost.length === 0 ? [] : [`lost versions ${lost.join(',')}`]),
    ...(problem === undefined ? [] : [problem]),
    ...(outcome === 'lost' ? ['no backup here has it'] : []),
  ];
  return words.join('  ');
}

const LOST =
  'recover from every other folder with projects, too. What none has is lost. To accept that, run "bunkms key destroy <name> --confirm <name>"; until then, each backup of BunKMS says that it lacks the key';

function fail(projects: readonly RecoveredProject[], from: string): void {
  const back = projects.filter(({ outcome, problem }) => outcome === 'deleted' && problem !== undefined);
  if (back.length > 0)
    throw new CliFailure(
      `these projects have no project file and a marker that they were deleted, but their keys exist: ${listOf(back.map(({ project = '' }) => project))}; a marker proves nothing: find out who deleted them before you destroy a key`,
    );
  const of = (...outcomes: RecoveredProject['outcome'][]) =>
    projects.filter(({ outcome }) => outcomes.includes(outcome));
  const others = of('conflict', 'unreadable').map(({ project = '' }) => project);
  const lost = of('lost').map(({ key = '' }) => key);
  const faults = [
    ...(others.length === 0 ? [] : [`the keys of these projects are not recovered: ${listOf(others)}`]),
    ...(lost.length === 0 ? [] : [`no backup in ${from} has these keys: ${listOf(lost)}; ${LOST}`]),
  ];
  if (faults.length > 0) throw new CliFailure(faults.join('; '));
}
