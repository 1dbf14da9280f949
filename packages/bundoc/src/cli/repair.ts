import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { type RepairedProject, repairProject } from '../engine/files/projects/repair-project.ts';
import { LossNotAccepted } from '../engine/files/store/rebuild.ts';
import { NotRepaired } from './errors.ts';
import { DOCUMENTS_FORMAT } from './move-bar.ts';
import { withData } from './open-data.ts';

/** Repairs one project. @throws NotRepaired, naming `--accept-loss` when the repair needs it. */
export async function repair(
  environment: Environment,
  project: string,
  options: { readonly acceptLoss?: true; readonly json?: true },
): Promise<void> {
  const repaired = await withData(environment, project, async ({ projects: [place], withEngine }) => {
    if (place === undefined) return undefined;
    using progress = createProgress(DOCUMENTS_FORMAT);
    try {
      return await repairProject(place, {
        clock: systemClock,
        acceptLoss: options.acceptLoss === true,
        onProgress: (done, total) => progress.show(done, total, place.project),
        withEngine,
      });
    } catch (error) {
      const hint =
        error instanceof LossNotAccepted ? '; to continue without them, repair it with --accept-loss' : '';
      throw new NotRepaired(`${lineOf(error)}${hint}`, { cause: error });
    }
  });
  if (repaired === undefined) return;
  if (options.json) console.log(JSON.stringify(repaired));
  else print(repaired);
}

function print({ faults, done, lostSeqs, lost, adopted }: RepairedProject): void {
  if (faults.length === 0 && done.length === 0) console.log('nothing to repair');
  for (const fault of faults) console.log(`was wrong: ${fault}`);
  for (const step of done) console.log(`done: ${step}`);
  if (adopted > 0) console.log(`done: took ${counted(adopted, 'document')} from the files`);
  for (const { from, to } of lostSeqs)
    console.log(`may be lost: commits ${to === undefined ? `from ${from} on` : `${from} to ${to}`}`);
  for (const { file, collection, id } of lost)
    console.log(`lost: ${file}${id === undefined ? '' : ` (${JSON.stringify(id)} in ${collection})`}`);
}
