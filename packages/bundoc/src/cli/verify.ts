import type { Environment } from '@bundoc/shared/config';
import { type VerifiedProject, verifyProject } from '../project/verify-project.ts';
import { withData } from './open-data.ts';
import { createProgress } from './progress.ts';

/** Checks one project, or all. @returns true when all is well. */
export async function verify(
  environment: Environment,
  named: string | undefined,
  options: { readonly json?: true },
): Promise<boolean> {
  const projects = await withData(environment, named, async (data) => {
    using progress = createProgress();
    const verified: VerifiedProject[] = [];
    for (const place of data.projects) verified.push(await verifyProject(place, progress.of(place.project)));
    return verified;
  });
  const ok = projects.every(({ findings }) => findings.length === 0);
  if (options.json) console.log(JSON.stringify({ ok, projects }));
  else print(projects);
  return ok;
}

function print(projects: readonly VerifiedProject[]): void {
  for (const { project, findings } of projects)
    for (const { part, problem } of findings) console.log(`${project}  ${part}  ${problem}`);
  const documents = projects.reduce((sum, project) => sum + project.documents, 0);
  const findings = projects.reduce((sum, project) => sum + project.findings.length, 0);
  const outcome = findings === 0 ? 'all good' : `${findings} findings`;
  console.error(`bundoc: ${documents} documents in ${projects.length} projects: ${outcome}`);
}
