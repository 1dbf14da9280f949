import { createInterface } from 'node:readline';
import { defined } from '@bundoc/shared/contract/defined';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import type { StorageInfo } from '@bundoc/shared/contract/storages';
import type { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Environment } from '@bundoc/shared/runtime/config';
import { storageInfo, takeOverStorage } from '../keys/storages.ts';
import { CLI_CALLER } from '../records/caller.ts';
import {
  type ClaimedKey,
  type ContentOf,
  claimKeys,
  contentOfFolder,
  storageOfFolder,
} from '../recovery/claim-keys.ts';
import { listOf } from '../recovery/errors.ts';
import { NoDataFolder, openDataFolder, projectsIn } from '../recovery/project-keys.ts';
import { CliFailure, UsageError } from './errors.ts';
import type { JsonOption } from './key.ts';
import { withKeys } from './open-kms.ts';

export async function showStorage(environment: Environment, id: string, options: JsonOption): Promise<void> {
  print(await withKeys(environment, (deps) => storageInfo(deps, id)), options);
}

/** A running Bundoc with the former copy stops within a second, because BunKMS notifies it. */
export async function takeOver(
  environment: Environment,
  id: string,
  options: JsonOption & { readonly generation?: string; readonly force?: true },
): Promise<void> {
  const { generation, force = false } = options;
  const wanted = { force, ...defined({ generation }) };
  print(await withKeys(environment, (deps) => takeOverStorage(deps, id, wanted, CLI_CALLER)), options);
}

export interface ClaimAllOptions extends JsonOption {
  /** Bundoc's data folder. Without it, standard input has the names of projects, one per line. */
  readonly from?: string;
}

/**
 * Claims the keys of all projects with content in a storage.
 *
 * @throws UsageError when the folder belongs to another storage, or there are no names. CliFailure when
 *   other storages hold keys or keys could not be claimed, after claiming all others.
 */
export async function claimAll(
  environment: Environment,
  id: string,
  options: ClaimAllOptions,
): Promise<void> {
  const { from } = options;
  using folder = from === undefined ? undefined : openFolder(from);
  const found = folder && storageOfFolder(folder);
  if (found !== undefined && found !== id) throw new UsageError(`${from} is the storage ${found}, not ${id}`);
  const projects = await withKeys(environment, async (deps) => {
    const all: ClaimedKey[] = [];
    const content = folder === undefined ? contentOfNames(process.stdin) : contentOfFolder(folder);
    for await (const project of claimKeys(deps, id, content, CLI_CALLER)) {
      all.push(project);
      if (!options.json) console.log(lineOf(project));
    }
    return all;
  });
  // A failing query before the pipe also leads to no names.
  if (folder === undefined && projects.length === 0)
    throw new UsageError('standard input names no project: give the names, one per line, or --from');
  if (options.json) console.log(JSON.stringify({ storage: id, projects }));
  fail(projects);
}

/** @throws UsageError. */
function openFolder(path: string): DataFolder {
  try {
    const folder = openDataFolder(path);
    // Fail here rather than after some claims.
    projectsIn(folder);
    return folder;
  } catch (error) {
    throw error instanceof NoDataFolder ? new UsageError(error.message) : error;
  }
}

/** @throws UsageError for a line that is not the name of a project. */
async function* contentOfNames(input: NodeJS.ReadableStream): AsyncGenerator<ContentOf> {
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    const name = line.trim();
    if (name === '') continue;
    const project = projectIdSchema.safeParse(name);
    if (!project.success)
      throw new UsageError(`not the name of a project: ${JSON.stringify(name.slice(0, 80))}`);
    yield { project: project.data };
  }
}

function fail(projects: readonly ClaimedKey[]): void {
  const of = (...outcomes: ClaimedKey['outcome'][]) =>
    projects.filter(({ outcome }) => outcomes.includes(outcome)).map(({ project }) => project);
  const elsewhere = of('elsewhere');
  const moving = of('moving');
  const others = of('missing', 'damaged', 'another-key', 'unreadable');
  const faults = [
    ...(elsewhere.length === 0
      ? []
      : [`other storages hold the keys of these projects: ${listOf(elsewhere)}`]),
    ...(moving.length === 0
      ? []
      : [
          `these projects have the marker of a move; claim each key for the storage that has it: ${listOf(moving)}`,
        ]),
    ...(others.length === 0 ? [] : [`the keys of these projects are not claimed: ${listOf(others)}`]),
  ];
  if (faults.length > 0) throw new CliFailure(faults.join('; '));
}

function lineOf({ project, key, outcome, holder, problem }: ClaimedKey): string {
  return [
    project,
    key,
    outcome,
    ...(holder === undefined ? [] : [holder]),
    ...(problem ? [problem] : []),
  ].join('  ');
}

function print(storage: StorageInfo, options: JsonOption): void {
  if (options.json) console.log(JSON.stringify(storage));
  else for (const [fact, value] of Object.entries(storage)) console.log(`${fact}: ${value}`);
}
