import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { readConfig } from '../config.ts';
import type { LostProjects } from '../engine/lost-projects.ts';
import { LostInRows } from '../engine/postgres/rows/lost-in-rows.ts';
import { withFolder } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { projectId } from './service-client.ts';

/**
 * `bundoc accept-loss`: lists the lost projects, or accepts the loss of one or all of them. Afterwards such a
 * project can be created again, under its present key. On files, the service is stopped; nodes on PostgreSQL
 * may run. Needs no key. With `--frames`, it accepts that frames of the log are lost whose projects are
 * unknown.
 */
export const addAcceptLossCommand: AddCommands = (program, environment) => {
  command(
    program,
    'accept-loss',
    'lists the projects that a copy of the storage lacks since it took over, or accepts their loss, so that they can be created again',
  )
    .argument('[project]', 'a project of the list', projectId)
    .option('--all', 'accept the loss of all of them')
    .option('--frames', 'accept the loss of damaged frames of the log, for all projects')
    .action(async (project, { all, frames, ...options }) => {
      if (project !== undefined && all) throw new CommandError('give a project or --all, not both');
      if (frames) {
        if (project !== undefined || all) throw new CommandError('--frames concerns all projects');
        return acceptFrames(environment, options);
      }
      const { storage } = readConfig(environment);
      const isListing = project === undefined && !all;
      const run = async (lost: LostProjects) => {
        const listed = await lost.list();
        if (project !== undefined && !listed.includes(project))
          throw new CommandError(`${project} is not lost`);
        const named = project === undefined ? listed : [project];
        if (!isListing) await lost.accept(named);
        return named;
      };
      const named = await (storage.kind === 'files'
        ? withFolder(environment, ({ lost }) => run(lost))
        : withDatabase(storage, (database) => run(new LostInRows(database, systemClock))));
      print(options, isListing ? { lost: named } : { accepted: named }, () => named);
      if (options.json) return;
      const what = counted(named.length, 'project');
      console.error(
        isListing
          ? `bundoc: ${what} lost`
          : `bundoc: accepted the loss of ${what}; a write creates one again, unless its key is destroyed`,
      );
    });
};

async function acceptFrames(environment: Environment, options: JsonOption): Promise<void> {
  await withFolder(environment, async ({ engine, identity }) => {
    // First: afterwards, projects open, and must not repeat the positions of lost commits.
    await identity.change((file) => ({ ...file, lossAcceptedMs: systemClock.now() }));
    await engine.acceptLoss();
  });
  if (options.json) print(options, { accepted: 'frames' }, () => []);
  else console.error('bundoc: accepted the loss of damaged frames of the log');
}
