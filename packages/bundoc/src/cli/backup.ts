import { createReadStream, existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { readConfig } from '../config.ts';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import { clearFolder } from '../engine/files/projects/clear-folder.ts';
import { MOVED_FOLDER } from '../engine/files/projects/moved-folder.ts';
import { restoreProject } from '../engine/files/transfer/restore-project.ts';
import { isLeftOver } from '../engine/moves/judge-move-mark.ts';
import type { MarkSetAside } from '../engine/moves/set-aside.ts';
import { SET_ASIDE_FOLDER } from '../engine/moves/set-aside.ts';
import { clearRows } from '../engine/postgres/rows/clear-rows.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import { restoreProjectInRows } from '../engine/postgres/transfer/restore-rows.ts';
import type { KeyExporter } from '../engine/projects/project-keys.ts';
import {
  type BackupFacts,
  checkBackup,
  cipherOf,
  openBackup,
  restoreSource,
} from '../operations/read-backup.ts';
import { backUpAll } from './backup-all.ts';
import { withKeys, withMadeFolder, withStorageKeys } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { isTerminal, write } from './output.ts';
import { receiveBackup } from './receive-backup.ts';
import {
  openProject,
  projectId,
  type ServiceOptions,
  serviceAccess,
  serviceCommand,
  stopSignal,
} from './service-client.ts';
import type { StorageExporter } from './storage-exporter.ts';
import { createTransferBar } from './transfer-bar.ts';
import { verifyFolder } from './verify-folder.ts';

/** `bundoc backup|verify-backup|restore`: a project as one sealed file. */
export const addBackupCommands: AddCommands = (program, environment) => {
  serviceCommand(
    program,
    'backup',
    'backs up a project of the running service, while it is in use, as one sealed file; or all of them',
  )
    .argument('[project]', 'its id', projectId)
    .argument('[file]', '- for standard output')
    .option(
      '--all <folder>',
      'every project that the token is for, each into a file of this folder; run it again to continue, or to write what has changed',
    )
    .action(async (project, file, { all, ...options }) => {
      if (all !== undefined) {
        if (project !== undefined) throw new CommandError('give a project and a file, or --all, not both');
        const signal = stopSignal();
        return backUpAll(await serviceAccess(environment, options), all, { ...options, signal });
      }
      if (project === undefined || file === undefined)
        throw new CommandError('give a project and a file, or --all <folder>');
      await backup(environment, project, file, options);
    });
  command(
    program,
    'verify-backup',
    'checks that a backup is complete and unchanged, without a key; needs neither service nor data folder',
  )
    .argument('<file>', 'of a backup, or a folder of backups with its manifest')
    .option('--with-key', 'fetch the key, and check that every document in the file is authentic')
    .action(async (path, { withKey, ...options }) => {
      if (isFolder(path)) {
        if (withKey) throw new CommandError('--with-key checks one file: name a file of the folder');
        return verifyFolder(path, options);
      }
      const facts = await check(path);
      if (!withKey) return printFacts(facts, options);
      // Needs only the key: a backup can be checked on any machine, whichever storage holds the project.
      const end = await withKeys(readConfig(environment), async (kms) => {
        const cipher = await cipherFor(facts, kms);
        return openBackup(createReadStream(path), cipher, async () => undefined);
      });
      printFacts(facts, options, end);
    });
  command(
    program,
    'restore',
    'restores a project from a backup; needs its key, and refuses if the project exists',
  )
    .argument('<file>')
    .action((file, options) => restore(environment, file, options));
};

/**
 * Backs up a project of a running service. The file appears only when the backup is complete, checked and
 * durable. For `-`, it writes to standard output; then only the exit code says whether the backup is
 * complete.
 */
async function backup(
  environment: Environment,
  id: string,
  path: string,
  options: ServiceOptions & JsonOption,
): Promise<void> {
  const toOutput = path === '-';
  if (toOutput && isTerminal())
    throw new CommandError('a backup is binary: redirect standard output, or name a file');
  if (!toOutput && existsSync(path)) throw new CommandError(`${path} already exists`);
  const signal = stopSignal();
  const project = await openProject(environment, options, id);
  using bar = createTransferBar(undefined);
  const take = toOutput ? writeAll : (pieces: AsyncIterable<Uint8Array>) => makeFile(path, pieces);
  const facts = await receiveBackup(project, take, { signal, onProgress: (bytes) => bar.update(bytes, 0) });
  bar[Symbol.dispose]();
  printFacts(facts, options, undefined, toOutput ? console.error : console.log);
}

async function makeFile(path: string, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  if (!(await createPrivateFile(path, pieces))) throw new CommandError(`${path} already exists`);
}

async function writeAll(pieces: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const piece of pieces) await write(piece);
}

/**
 * Restores a project from a backup, into the data folder of a stopped service or into PostgreSQL beside
 * running nodes.
 */
async function restore(environment: Environment, path: string, options: JsonOption): Promise<void> {
  const facts = await check(path);
  const config = readConfig(environment);
  const { storage } = config;
  const { project } = facts.head;
  const source = async (keys: StorageExporter) =>
    restoreSource(facts, () => createReadStream(path), await cipherFor(facts, keys, keys.storage.id));
  // Judges markers only after BunKMS has released the key to this storage.
  const marked = (keys: StorageExporter) => ({
    project,
    onSetAside: printSetAside,
    isLeftOver: (mark: string, hasFile: boolean) =>
      isLeftOver(project, mark, hasFile, (version) => keys.exportKey(dekNameOf(project), version)),
  });
  using bar = createTransferBar(undefined);
  const onProgress = (entries: number) => bar.update(0, entries);
  const restored = async () => {
    if (storage.kind === 'postgres')
      return withDatabase(storage, async (database) =>
        withStorageKeys(config, await identifyDatabase(database, systemClock), async (keys) => {
          const from = await source(keys);
          await clearRows(database, marked(keys));
          return restoreProjectInRows({ ...from, database, clock: systemClock, onProgress });
        }),
      );
    return withMadeFolder(config, ({ dataDir, projectsDir, tmp, disk, identity, engine }) =>
      withStorageKeys(config, identity, async (keys) => {
        const from = await source(keys);
        await clearFolder({
          ...marked(keys),
          directory: join(projectsDir, project),
          disk,
          keptIn: join(dataDir, MOVED_FOLDER),
          setAside: join(dataDir, SET_ASIDE_FOLDER),
        });
        const arrived = (handle: string) => engine.arrived(project, handle, from.cipher);
        const place = { projectsDirectory: projectsDir, tmp, disk, arrived };
        return restoreProject({ ...from, ...place, clock: systemClock, onProgress });
      }),
    );
  };
  const end = await restored();
  bar[Symbol.dispose]();
  printFacts(facts, options, end);
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

async function check(path: string): Promise<BackupFacts> {
  if (!existsSync(path)) throw new CommandError(`there is no file at ${path}`);
  using bar = createTransferBar(statSync(path).size);
  return await checkBackup(createReadStream(path), (bytes) => bar.update(bytes, 0));
}

/** @param storage the storage that the project is restored into. */
async function cipherFor(facts: BackupFacts, keys: KeyExporter, storage?: string): Promise<ProjectCipher> {
  try {
    return await cipherOf(facts, keys);
  } catch (cause) {
    const why = explainMissingKey(cause, facts.head.project, storage);
    throw new CommandError(why ?? formatError(cause), { cause });
  }
}

/** @param end what is known of a backup once all of it has been opened. */
function printFacts(
  { head, bytes, blocks, file }: BackupFacts,
  { json }: JsonOption,
  end?: { readonly entries: number; readonly createdMs: number },
  tell: (line: string) => void = console.log,
): void {
  const facts = {
    project: head.project,
    id: head.id.toString('hex'),
    bytes,
    blocks,
    key_versions: file.versions.map(({ version }) => version),
    ...(end && { entries: end.entries, complete_at: new Date(end.createdMs).toISOString() }),
  };
  const words = Object.entries(facts).map(([name, value]) => `${name} ${String(value)}`);
  tell(json ? JSON.stringify(facts) : words.join(', '));
}

/**
 * Why the key of a backup is unavailable, and what to do; undefined for any other error.
 *
 * @param storage the storage that the project is restored into, if any.
 */
function explainMissingKey(error: unknown, project: string, storage?: string): string | undefined {
  if (!(error instanceof AppError)) return undefined;
  switch (error.code) {
    case 'project_destroyed':
      return 'its key was permanently destroyed: the backup can no longer be read';
    case 'key_not_found':
    case 'key_missing':
      return 'BunKMS does not know its key: the backup cannot be read without it';
    case 'project_elsewhere':
      return `storage ${error.storage} holds its key: if the project is to be restored here, an administrator first lets this storage take the key over (bunkms key take-over ${dekNameOf(project)} --storage ${storage})`;
    case 'key_unheld':
      return `no storage holds its key: an administrator first lets this storage claim it (bunkms key claim ${dekNameOf(project)} --storage ${storage})`;
    case 'key_mismatch':
      return 'BunKMS has another key under its name than the backup was made with';
    default:
      return undefined;
  }
}

/** Reports the file or the text of a marker that a restore has set aside. */
function printSetAside({ project, file, text }: MarkSetAside): void {
  const where = file === undefined ? `: ${text}` : `: it is in set-aside/${file}`;
  console.error(`bundoc: a mark of ${project} that BunKMS does not confirm was set aside${where}`);
}
