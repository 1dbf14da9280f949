import type { Environment } from '@bundoc/shared/runtime/config';
import { readConfig } from '../config.ts';
import { statsOfProject } from '../engine/files/projects/project-stats.ts';
import { statsOfProjectInRows } from '../engine/postgres/projects/admin.ts';
import type { StatsOutcome } from '../engine/reports.ts';
import { withData, withRows } from './open-data.ts';

/** Prints the totals of one project, or of each. @returns true when every project was readable. */
export async function stats(
  environment: Environment,
  named: string | undefined,
  options: { readonly json?: true },
): Promise<boolean> {
  const { storage } = readConfig(environment);
  const { of, projects } =
    storage.kind === 'files'
      ? await withData(environment, named, async ({ projects, storage: of }) => ({
          of,
          projects: await inTurn(projects, statsOfProject),
        }))
      : await withRows(environment, storage, named, async (places, of) => ({
          of,
          projects: await inTurn(places, statsOfProjectInRows),
        }));
  if (options.json) console.log(JSON.stringify({ storage: of, projects }));
  else
    for (const line of [`storage ${of.id}, generation ${of.generation ?? '-'}`, ...table(projects)])
      console.log(line);
  return projects.every((outcome) => !('error' in outcome));
}

async function inTurn<P>(
  places: readonly P[],
  inspect: (place: P) => Promise<StatsOutcome>,
): Promise<readonly StatsOutcome[]> {
  const outcomes: StatsOutcome[] = [];
  for (const place of places) outcomes.push(await inspect(place));
  return outcomes;
}

const HEAD = [
  'project',
  'documents',
  'tombstones',
  'collections',
  'sealed bytes',
  'log bytes',
  'keys',
  'last seq',
];

function table(outcomes: readonly StatsOutcome[]): string[] {
  const rows = [HEAD, ...outcomes.map(cellsOf)];
  const widths = HEAD.map((_name, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join('  '),
  );
  const errors = outcomes.flatMap((outcome) =>
    'error' in outcome ? [`${outcome.project}  ${outcome.error}`] : [],
  );
  return [...lines, ...errors];
}

function cellsOf(outcome: StatsOutcome): string[] {
  if ('error' in outcome) return [outcome.project, ...HEAD.slice(1).map(() => '-')];
  const { project, documents, tombstones, collections, sealedBytes, logBytes, keyVersions, lastSeq } =
    outcome;
  const numbers = [documents, tombstones, collections, sealedBytes, logBytes ?? '-'].map(String);
  return [project, ...numbers, keyVersions.join(','), String(lastSeq)];
}
