import { createInterface } from 'node:readline';
import { type AddCommands, command, Option, parserOf } from '@bundoc/shared/cli/command';
import { factLines, type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { defined } from '@bundoc/shared/contract/defined';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { generationSchema, type StorageInfo, storageIdSchema } from '@bundoc/shared/contract/storages';
import type { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Environment } from '@bundoc/shared/process/config';
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
import { printStorages } from './list-storages.ts';
import { type CliDeps, withKeys } from './open-kms.ts';
import { takeOverAll } from './take-over-all.ts';

/** `bunkms storage …`: the storages of Bundoc that hold keys. */
export const addStorageCommands: AddCommands = (program, environment) => {
  const group = program.command('storage').description('storages of Bundoc, which hold keys');
  const onStorage = (name: string, description: string) =>
    command(group, name, description).argument(
      '<id>',
      'the storage, as Bundoc shows it',
      parserOf(storageIdSchema),
    );
  const show = async (options: JsonOption, read: (deps: CliDeps) => Promise<StorageInfo>) => {
    const storage = await withKeys(environment, read);
    print(options, storage, () => storageLines(storage));
  };

  command(group, 'list', 'all storages: generation, number of keys, and when each was last seen').action(
    (options) => printStorages(environment, options),
  );
  onStorage('show', 'shows the generation of a storage').action((id, options) =>
    show(options, (deps) => storageInfo(deps, id)),
  );
  // A running Bundoc with the former copy stops within a second, because BunKMS notifies it.
  onStorage(
    'take-over',
    'lets another copy of a storage take its place; the former one stops. With --of, gives it all keys of another storage',
  )
    .option(
      '--generation <id>',
      'the copy with this generation; by default the next one that starts',
      parserOf(generationSchema),
    )
    .addOption(
      new Option('--of <id>', 'give it every key of this storage, which is lost')
        .argParser(parserOf(storageIdSchema))
        .conflicts('generation'),
    )
    .option('--confirm', 'with --of: do it; without it, the command shows what it would do')
    .option(
      '--force',
      'do not wait for leases: only if the machine of the former copy is gone or stopped for certain',
    )
    .action((id, { generation, of, confirm = false, force = false, ...options }) => {
      if (of !== undefined) return takeOverAll(environment, { storage: id, of, confirm, force }, options);
      if (confirm) throw new UsageError('--confirm needs --of');
      return show(options, (deps) =>
        takeOverStorage(deps, id, { force, ...defined({ generation }) }, CLI_CALLER),
      );
    });
  onStorage('claim-all', 'claims the keys of all projects that have content in a storage')
    .option(
      '--from <folder>',
      "Bundoc's data folder, or a folder of backups; by default, reads names of projects from standard input, one per line",
    )
    .action((id, { from, ...options }) => claimAll(environment, id, from, options));
};

function storageLines({ taken_over_ms: takenOverMs, ...facts }: StorageInfo): string[] {
  const takenOver = takenOverMs === 0 ? 'never' : new Date(takenOverMs).toISOString();
  return factLines({ ...facts, taken_over: takenOver });
}

/**
 * Claims the keys of all projects with content in a storage.
 *
 * @param from Bundoc's data folder, or a folder of backups. Without it, standard input has the names of
 *   projects, one per line.
 * @throws UsageError when the folder belongs to another storage, or there are no names. CliFailure when
 *   other storages hold keys or keys could not be claimed, after claiming all others.
 */
async function claimAll(
  environment: Environment,
  id: string,
  from: string | undefined,
  options: JsonOption,
): Promise<void> {
  using folder = from === undefined ? undefined : openFolder(from);
  const found = folder && storageOfFolder(folder);
  if (found !== undefined && found !== id) throw new UsageError(`${from} is the storage ${found}, not ${id}`);
  const projects = await withKeys(environment, async (deps) => {
    const all: ClaimedKey[] = [];
    const content = folder === undefined ? contentOfNames(process.stdin) : contentOfFolder(folder);
    for await (const claimed of claimKeys(deps, id, content, CLI_CALLER)) {
      all.push(claimed);
      const { project, key, outcome, holder, problem } = claimed;
      if (!options.json) console.log(rowLine(project, key, outcome, holder, problem || undefined));
    }
    return all;
  });
  // A failing query before the pipe also leads to no names.
  if (folder === undefined && projects.length === 0)
    throw new UsageError('standard input names no project: give the names, one per line, or --from');
  print(options, { storage: id, projects }, () => []);
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
  const fault = (why: string, ...outcomes: ClaimedKey['outcome'][]) => {
    const names = projects.filter(({ outcome }) => outcomes.includes(outcome)).map(({ project }) => project);
    return names.length === 0 ? [] : [`${why}: ${listOf(names)}`];
  };
  const faults = [
    ...fault('other storages hold the keys of these projects', 'elsewhere'),
    ...fault(
      'these projects have the marker of a move; claim each key for the storage that has it',
      'moving',
    ),
    ...fault('the keys of these projects are not claimed', 'missing', 'damaged', 'another-key', 'unreadable'),
  ];
  if (faults.length > 0) throw new CliFailure(faults.join('; '));
}
