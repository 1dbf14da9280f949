import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { faultFound } from '@bundoc/shared/cli/errors';
import { print } from '@bundoc/shared/cli/print';
import { type Column, Table } from '@bundoc/shared/cli/table';
import { statsOfProject } from '../engine/files/projects/project-stats.ts';
import type { StatsOutcome } from '../engine/port/reports.ts';
import { statsOfProjectInRows } from '../engine/postgres/projects/admin.ts';
import { eachProject } from './open-data.ts';
import { projectId } from './service-client.ts';

/** `bundoc stats`: prints the totals of one project, or of each. */
export const addStatsCommand: AddCommands = (program, environment) => {
  command(program, 'stats', 'shows what each project contains')
    .argument('[project]', 'one project; by default all', projectId)
    .action(async (named, options) => {
      const found = await eachProject(environment, named, statsOfProject, statsOfProjectInRows);
      const { projects, storage } = found;
      const errors = projects.flatMap((one) => ('error' in one ? [`${one.project}  ${one.error}`] : []));
      print(options, { storage, projects }, () => [
        `storage ${storage.id}, generation ${storage.generation ?? '-'}`,
        ...new Table(COLUMNS).lines(projects),
        ...errors,
      ]);
      if (errors.length > 0) throw faultFound();
    });
};

type Stats = Exclude<StatsOutcome, { readonly error: unknown }>;

/** A column of numbers; a project that cannot be read has none. */
function column(head: string, cell: (stats: Stats) => unknown): Column<StatsOutcome> {
  return { head, cell: (one) => ('error' in one ? '-' : String(cell(one) ?? '-')), align: 'right' };
}

const COLUMNS: readonly Column<StatsOutcome>[] = [
  { head: 'project', cell: ({ project }) => project },
  column('documents', ({ documents }) => documents),
  column('tombstones', ({ tombstones }) => tombstones),
  column('collections', ({ collections }) => collections),
  column('sealed bytes', ({ sealedBytes }) => sealedBytes),
  column('log bytes', ({ logBytes }) => logBytes),
  column('keys', ({ keyVersions }) => keyVersions.join(',')),
  column('last seq', ({ lastSeq }) => lastSeq),
];
