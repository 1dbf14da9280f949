import { createReadStream, existsSync, statSync } from 'node:fs';
import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import { BackupDamaged } from '../engine/port/errors.ts';
import { type BackupFacts, checkBackup, cipherOf, openBackup } from '../operations/read-backup.ts';
import { backUpAll } from './backup-all.ts';
import { explainMissingKey } from './missing-key.ts';
import { withKeys } from './open-data.ts';
import { isTerminal, write } from './output.ts';
import { receiveBackup } from './receive-backup.ts';
import { restoreFolder } from './restore-folder.ts';
import { withRestorePlace } from './restore-place.ts';
import {
  openProject,
  projectId,
  type ServiceOptions,
  serviceAccess,
  serviceCommand,
  stopSignal,
} from './service-client.ts';
import { createTransferBar } from './transfer-bar.ts';
import { verifyFolder } from './verify-folder.ts';

/** `bundoc backup|verify-backup|restore`: a project as one sealed file, or all of them in a folder. */
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
        if (existsSync(all) && !isFolder(all))
          throw new CommandError(`${all} is a file: --all takes a folder`);
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
        const cipher = await cipherOf(facts, kms).catch((cause: unknown) => {
          const why = explainMissingKey(cause, facts.head.project);
          throw why === undefined ? cause : new CommandError(why, { cause });
        });
        return openBackup(createReadStream(path), cipher, async () => undefined);
      });
      printFacts(facts, options, end);
    });
  command(
    program,
    'restore',
    'restores a project from a backup, or all of a folder; needs the keys, and leaves existing projects as they are',
  )
    .argument('<file>', 'of a backup, or a folder of backups with its manifest; run it again to continue')
    .action((path, options) =>
      isFolder(path) ? restoreFolder(environment, path, options) : restore(environment, path, options),
    );
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
  using bar = createTransferBar(undefined);
  const onProgress = (entries: number) => bar.update(0, entries);
  const open = () => createReadStream(path);
  const end = await withRestorePlace(readConfig(environment), (place) =>
    place.restore({ facts, open, onProgress }).catch((cause: unknown) => {
      const why = explainMissingKey(cause, facts.head.project, place.storage);
      throw why === undefined ? cause : new CommandError(why, { cause });
    }),
  );
  bar[Symbol.dispose]();
  printFacts(facts, options, end);
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

async function check(path: string): Promise<BackupFacts> {
  if (!existsSync(path)) throw new CommandError(`there is no file at ${path}`);
  using bar = createTransferBar(statSync(path).size);
  return await checkBackup(createReadStream(path), (bytes) => bar.update(bytes, 0)).catch(
    (cause: unknown) => {
      throw cause instanceof BackupDamaged ? new CommandError(`${path}: ${cause.message}`, { cause }) : cause;
    },
  );
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
