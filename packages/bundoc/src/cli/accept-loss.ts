import { counted } from '@bundoc/shared/cli/counted';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { readConfig } from '../config.ts';
import type { LostProjects } from '../engine/lost-projects.ts';
import { LostInRows } from '../engine/postgres/rows/lost-in-rows.ts';
import { CommandError } from './errors.ts';
import { parseProjectId } from './names.ts';
import { withFolder } from './open-data.ts';
import { withDatabase } from './open-database.ts';

export interface AcceptLossOptions {
  readonly all?: true;
  /** Accepts damaged frames of the log instead of lost projects. */
  readonly frames?: true;
  readonly json?: true;
}

/**
 * Lists the lost projects, or accepts the loss of one or all of them. Afterwards such a project can be
 * created again, under its present key. On files, the service is stopped; nodes on PostgreSQL may run. Needs
 * no key. With `frames`, it accepts that frames of the log are lost whose projects are unknown.
 *
 * @throws CommandError when the project is not lost.
 */
export async function acceptLoss(
  environment: Environment,
  named: string | undefined,
  options: AcceptLossOptions,
): Promise<void> {
  if (named !== undefined && options.all) throw new CommandError('give a project or --all, not both');
  const project = named === undefined ? undefined : parseProjectId(named);
  if (options.frames) {
    if (named !== undefined || options.all) throw new CommandError('--frames concerns all projects');
    await acceptFrames(environment, options);
    return;
  }
  const { storage } = readConfig(environment);
  const run = (lost: LostProjects) => listOrAccept(lost, project, options);
  if (storage.kind === 'files') await withFolder(environment, ({ lost }) => run(lost));
  else await withDatabase(storage, (database) => run(new LostInRows(database, systemClock)));
}

async function acceptFrames(environment: Environment, { json }: AcceptLossOptions): Promise<void> {
  await withFolder(environment, async ({ engine, identity }) => {
    // First: afterwards, projects open, and must not repeat the positions of lost commits.
    await identity.change((file) => ({ ...file, lossAcceptedMs: systemClock.now() }));
    await engine.acceptLoss();
  });
  if (json) console.log(JSON.stringify({ accepted: 'frames' }));
  else console.error('bundoc: accepted the loss of damaged frames of the log');
}

async function listOrAccept(
  lost: LostProjects,
  project: string | undefined,
  { all, json }: AcceptLossOptions,
): Promise<void> {
  const listed = await lost.list();
  if (project !== undefined && !listed.includes(project)) throw new CommandError(`${project} is not lost`);
  const accepted = project === undefined ? listed : [project];
  const isListing = project === undefined && !all;
  if (!isListing) await lost.accept(accepted);
  if (json) console.log(JSON.stringify(isListing ? { lost: listed } : { accepted }));
  else {
    for (const one of accepted) console.log(one);
    const what = counted(accepted.length, 'project');
    console.error(
      isListing ? `bundoc: ${what} lost` : `bundoc: accepted the loss of ${what}; a write creates one again`,
    );
  }
}
