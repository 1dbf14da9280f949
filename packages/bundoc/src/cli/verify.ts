import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { faultFound } from '@bundoc/shared/cli/errors';
import { print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { verifyProject } from '../engine/files/projects/verify-project.ts';
import { verifyProjectInRows } from '../engine/postgres/projects/admin.ts';
import { eachProject } from './open-data.ts';
import { projectId } from './service-client.ts';
import { DOCUMENTS_FORMAT } from './transfer-bar.ts';

/** `bundoc verify`: checks one project, or all. */
export const addVerifyCommand: AddCommands = (program, environment) => {
  command(
    program,
    'verify',
    'opens and checks every document; changes nothing; exit code 1 when something is wrong',
  )
    .argument('[project]', 'one project; by default all', projectId)
    .action(async (named, options) => {
      using progress = createProgress(DOCUMENTS_FORMAT);
      const tell = (project: string) => (done: number, total: number) => progress.show(done, total, project);
      const { projects, logDamage: log } = await eachProject(
        environment,
        named,
        (place) => verifyProject(place, tell(place.project)),
        (place) => verifyProjectInRows(place, tell(place.project)),
      );
      const lines = [
        ...log.map((problem) => `log  ${problem}`),
        ...projects.flatMap(({ project, findings }) =>
          findings.map(({ part, problem }) => `${project}  ${part}  ${problem}`),
        ),
      ];
      const ok = lines.length === 0;
      print(options, { ok, projects, log }, () => lines);
      const documents = counted(
        projects.reduce((sum, project) => sum + project.documents, 0),
        'document',
      );
      const outcome = ok ? 'all good' : counted(lines.length, 'finding');
      if (!options.json)
        console.error(`bundoc: ${documents} in ${counted(projects.length, 'project')}: ${outcome}`);
      if (!ok) throw faultFound();
    });
};
