import type { Environment } from '@bundoc/shared/config';
import { readConfig } from '../config.ts';
import { verifyProjectInRows } from '../project/project-in-rows.ts';
import { type VerifiedProject, verifyProject } from '../project/verify-project.ts';
import type { OnProgress } from '../storage/embedded/verify.ts';
import { withData, withRows } from './open-data.ts';
import { createProgress } from './progress.ts';

/** Checks one project, or all. @returns true when all is well. */
export async function verify(
  environment: Environment,
  named: string | undefined,
  options: { readonly json?: true },
): Promise<boolean> {
  const { storage } = readConfig(environment);
  const projects =
    storage.kind === 'files'
      ? await withData(environment, named, (data) => inTurn(data.projects, verifyProject))
      : await withRows(environment, storage, named, (places) => inTurn(places, verifyProjectInRows));
  const ok = projects.every(({ findings }) => findings.length === 0);
  if (options.json) console.log(JSON.stringify({ ok, projects }));
  else print(projects);
  return ok;
}

async function inTurn<P extends { readonly project: string }>(
  places: readonly P[],
  look: (place: P, onProgress: OnProgress) => Promise<VerifiedProject>,
): Promise<readonly VerifiedProject[]> {
  using progress = createProgress();
  const verified: VerifiedProject[] = [];
  for (const place of places) verified.push(await look(place, progress.of(place.project)));
  return verified;
}

function print(projects: readonly VerifiedProject[]): void {
  for (const { project, findings } of projects)
    for (const { part, problem } of findings) console.log(`${project}  ${part}  ${problem}`);
  const documents = projects.reduce((sum, project) => sum + project.documents, 0);
  const findings = projects.reduce((sum, project) => sum + project.findings.length, 0);
  const outcome = findings === 0 ? 'all good' : `${findings} findings`;
  console.error(`bundoc: ${documents} documents in ${projects.length} projects: ${outcome}`);
}
