import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { formatError } from '@bundoc/shared/logs/error-line';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { readConfig } from '../config.ts';
import { type RepairedProject, repairProject } from '../engine/files/projects/repair-project.ts';
import { LossNotAccepted } from '../engine/files/store/rebuild.ts';
import { withData } from './open-data.ts';
import { projectId } from './service-client.ts';
import { DOCUMENTS_FORMAT } from './transfer-bar.ts';

/** `bundoc repair`: repairs one project. If `--accept-loss` would help, the error says so. */
export const addRepairCommand: AddCommands = (program, environment) => {
  command(program, 'repair', 'repairs a project that answers project_damaged; deletes nothing')
    .argument('<project>', 'its id', projectId)
    .option('--accept-loss', 'give up acknowledged commits that are damaged in the log')
    .action(async (project, { acceptLoss = false, ...options }) => {
      await withData(readConfig(environment), project, async ({ projects: [place], withEngine }) => {
        if (place === undefined) return;
        using progress = createProgress(DOCUMENTS_FORMAT);
        const onProgress = (done: number, total: number) => progress.show(done, total, project);
        try {
          const repair = { clock: systemClock, acceptLoss, onProgress, withEngine };
          const repaired = await repairProject(place, repair);
          progress[Symbol.dispose]();
          print(options, repaired, () => linesOf(repaired));
        } catch (cause) {
          const hint =
            cause instanceof LossNotAccepted
              ? '; to continue without them, repair it with --accept-loss'
              : '';
          throw new CommandError(`${formatError(cause)}${hint}`, { exitCode: 1, cause });
        }
      });
    });
};

function linesOf({ faults, done, lostSeqs, lost, adopted }: RepairedProject): string[] {
  return [
    ...(faults.length === 0 && done.length === 0 ? ['nothing to repair'] : []),
    ...faults.map((fault) => `was wrong: ${fault}`),
    ...done.map((step) => `done: ${step}`),
    ...(adopted > 0 ? [`done: took ${counted(adopted, 'document')} from the files`] : []),
    ...lostSeqs.map(
      ({ from, to }) => `may be lost: commits ${to === undefined ? `from ${from} on` : `${from} to ${to}`}`,
    ),
    ...lost.map(
      ({ file, collection, id }) =>
        `lost: ${file}${id === undefined ? '' : ` (${JSON.stringify(id)} in ${collection})`}`,
    ),
  ];
}
