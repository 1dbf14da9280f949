import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import type { Environment } from '@bundoc/shared/runtime/config';
import { readConfig } from '../config.ts';
import { verifyProject } from '../engine/files/projects/verify-project.ts';
import { verifyProjectInRows } from '../engine/postgres/projects/admin.ts';
import type { OnProgress, VerifiedProject } from '../engine/reports.ts';
import { DOCUMENTS_FORMAT } from './move-bar.ts';
import { withData, withRows } from './open-data.ts';

/** Checks one project, or all. @returns true when all are intact. */
export async function verify(
  environment: Environment,
  named: string | undefined,
  options: { readonly json?: true },
): Promise<boolean> {
  const { storage } = readConfig(environment);
  const { projects, log } =
    storage.kind === 'files'
      ? await withData(environment, named, async (data) => ({
          projects: await inTurn(data.projects, verifyProject),
          log: data.logDamage,
        }))
      : await withRows(environment, storage, named, async (places) => ({
          projects: await inTurn(places, verifyProjectInRows),
          log: [],
        }));
  const ok = log.length === 0 && projects.every(({ findings }) => findings.length === 0);
  if (options.json) console.log(JSON.stringify({ ok, projects, log }));
  else print(projects, log);
  return ok;
}

async function inTurn<P extends { readonly project: string }>(
  places: readonly P[],
  check: (place: P, onProgress: OnProgress) => Promise<VerifiedProject>,
): Promise<readonly VerifiedProject[]> {
  using progress = createProgress(DOCUMENTS_FORMAT);
  const verified: VerifiedProject[] = [];
  for (const place of places)
    verified.push(await check(place, (done, total) => progress.show(done, total, place.project)));
  return verified;
}

function print(projects: readonly VerifiedProject[], log: readonly string[]): void {
  for (const problem of log) console.log(`log  ${problem}`);
  for (const { project, findings } of projects)
    for (const { part, problem } of findings) console.log(`${project}  ${part}  ${problem}`);
  const documents = projects.reduce((sum, project) => sum + project.documents, 0);
  const findings = projects.reduce((sum, project) => sum + project.findings.length, log.length);
  const outcome = findings === 0 ? 'all good' : counted(findings, 'finding');
  console.error(
    `bundoc: ${counted(documents, 'document')} in ${counted(projects.length, 'project')}: ${outcome}`,
  );
}
