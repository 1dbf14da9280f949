import { createReadStream, existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { readConfig } from '../config.ts';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import { clearFolder } from '../engine/files/projects/clear-folder.ts';
import { MOVED_FOLDER } from '../engine/files/projects/moved-folder.ts';
import { restoreProject } from '../engine/files/transfer/restore-project.ts';
import { isLeftOver } from '../engine/judge-move-mark.ts';
import { clearRows } from '../engine/postgres/rows/clear-rows.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import { restoreProjectInRows } from '../engine/postgres/transfer/restore-rows.ts';
import type { KeyExporter } from '../engine/project-keys.ts';
import { SET_ASIDE_FOLDER } from '../engine/set-aside.ts';
import {
  type BackupFacts,
  checkBackup,
  cipherOf,
  openBackup,
  restoreSource,
} from '../operations/read-backup.ts';
import { CommandError } from './errors.ts';
import { parseProjectId } from './names.ts';
import { withEmptyPlace, withKeys, withStorageKeys } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { isTerminal, write } from './output.ts';
import { type ServiceOptions, serviceClient, stopSignal } from './service-client.ts';
import { printSetAside } from './set-aside.ts';
import type { StorageExporter } from './storage-exporter.ts';
import { createTransferBar } from './transfer-bar.ts';

interface Output {
  readonly json?: true;
}

/**
 * Backs up a project of a running service. The file appears only when the backup is complete, checked and
 * durable. For `-`, it writes to standard output; then only the exit code says whether the backup is
 * complete.
 */
export async function backupCommand(
  environment: Environment,
  named: string,
  path: string,
  options: ServiceOptions & Output,
): Promise<void> {
  const toOutput = path === '-';
  if (toOutput && isTerminal())
    throw new CommandError('a backup is binary: redirect standard output, or name a file');
  if (!toOutput && existsSync(path)) throw new CommandError(`${path} already exists`);
  const project = parseProjectId(named);
  const signal = stopSignal();
  const bundoc = await serviceClient(environment, options);
  const stream = await bundoc.project(project).backup({ signal });
  using bar = createTransferBar(undefined);
  const take = toOutput ? writeAll : (pieces: AsyncIterable<Uint8Array>) => makeFile(path, pieces);
  const facts = await writeChecked(stream, take, (bytes) => bar.update(bytes, 0));
  bar[Symbol.dispose]();
  if (facts.head.project !== project)
    throw new CommandError('the service has sent the backup of another project');
  print(facts, options, {}, toOutput ? console.error : console.log);
}

async function makeFile(path: string, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  if (!(await createPrivateFile(path, pieces))) throw new CommandError(`${path} already exists`);
}

async function writeAll(pieces: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const piece of pieces) await write(piece);
}

/** Passes a backup to `take` and checks it on the way; `take` sees the end only of a valid one. */
async function writeChecked(
  stream: AsyncIterable<Uint8Array>,
  take: (pieces: AsyncIterable<Uint8Array>) => Promise<void>,
  onProgress: (bytes: number) => void,
): Promise<BackupFacts> {
  const checked = Promise.withResolvers<BackupFacts>();
  checked.promise.catch(() => undefined);
  /** Feeds each piece to the check before yielding it. */
  async function* pieces(): AsyncGenerator<Uint8Array, void, void> {
    const toCheck = new TransformStream<Uint8Array, Uint8Array>();
    const writer = toCheck.writable.getWriter();
    const check = checkBackup(toCheck.readable, onProgress);
    check.then(checked.resolve, checked.reject);
    check.catch(() => writer.abort().catch(() => undefined));
    for await (const piece of stream) {
      await Promise.race([writer.write(piece), checked.promise]);
      yield piece;
    }
    await Promise.race([writer.close(), checked.promise]);
    await checked.promise;
  }
  await take(pieces());
  return await checked.promise;
}

/**
 * Checks a backup. Without a key, it checks that the backup is complete and unaltered; with `withKey`, it
 * also authenticates each document.
 */
export async function verifyBackupCommand(
  environment: Environment,
  path: string,
  options: Output & { readonly withKey?: true },
): Promise<void> {
  const facts = await check(path);
  if (options.withKey !== true) return print(facts, options);
  // Needs only the key: a backup can be checked on any machine, whichever storage holds the project.
  const end = await withKeys(environment, async (kms) => {
    const cipher = await cipherFor(facts, kms);
    return openBackup(createReadStream(path), cipher, async () => undefined);
  });
  print(facts, options, { entries: end.entries, complete_at: new Date(end.createdMs).toISOString() });
}

/**
 * Restores a project from a backup, into the data folder of a stopped service or into PostgreSQL beside
 * running nodes.
 */
export async function restoreCommand(environment: Environment, path: string, options: Output): Promise<void> {
  const facts = await check(path);
  const { storage } = readConfig(environment);
  const { project } = facts.head;
  const source = async (keys: StorageExporter) =>
    restoreSource(facts, () => createReadStream(path), await cipherFor(facts, keys, keys.storage.id));
  // Judges markers only after BunKMS has released the key to this storage.
  const marked = (keys: StorageExporter) => ({
    ...{ project, onSetAside: printSetAside },
    isLeftOver: (mark: string, hasFile: boolean) =>
      isLeftOver(project, mark, hasFile, (version) => keys.exportKey(dekNameOf(project), version)),
  });
  using bar = createTransferBar(undefined);
  const onProgress = (entries: number) => bar.update(0, entries);
  const end =
    storage.kind === 'files'
      ? await withEmptyPlace(environment, async ({ dataDir, projectsDirectory, tmp, disk, keys, engine }) => {
          const from = await source(keys);
          await clearFolder({
            ...marked(keys),
            ...{ directory: join(projectsDirectory, project), disk },
            ...{ keptIn: join(dataDir, MOVED_FOLDER), setAside: join(dataDir, SET_ASIDE_FOLDER) },
          });
          return restoreProject({
            ...{ ...from, disk, clock: systemClock, projectsDirectory, tmp, onProgress },
            arrived: (handle) => engine.arrived(project, handle, from.cipher),
          });
        })
      : await withDatabase(storage, async (database) =>
          withStorageKeys(environment, await identifyDatabase(database, systemClock), async (keys) => {
            const from = await source(keys);
            await clearRows(database, marked(keys));
            return restoreProjectInRows({ ...from, database, clock: systemClock, onProgress });
          }),
        );
  bar[Symbol.dispose]();
  print(facts, options, { entries: end.entries, complete_at: new Date(end.createdMs).toISOString() });
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
  } catch (error) {
    throw new CommandError(explainMissingKey(error, facts.head.project, storage) ?? lineOf(error), {
      cause: error,
    });
  }
}

function print(
  { head, bytes, blocks, file }: BackupFacts,
  { json }: Output,
  more: Readonly<Record<string, unknown>> = {},
  tell: (line: string) => void = console.log,
): void {
  const facts = {
    project: head.project,
    id: head.id.toString('hex'),
    bytes,
    blocks,
    key_versions: file.versions.map(({ version }) => version),
    ...more,
  };
  if (json) tell(JSON.stringify(facts));
  else
    tell(
      Object.entries(facts)
        .map(([name, value]) => `${name} ${String(value)}`)
        .join(', '),
    );
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
