import { join } from 'node:path';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { MOVE_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { BundocConfig } from '../config.ts';
import { clearFolder } from '../engine/files/projects/clear-folder.ts';
import { MOVED_FOLDER } from '../engine/files/projects/moved-folder.ts';
import { restoreProject } from '../engine/files/transfer/restore-project.ts';
import { isLeftOver } from '../engine/moves/judge-move-mark.ts';
import { type MarkSetAside, SET_ASIDE_FOLDER } from '../engine/moves/set-aside.ts';
import type { BackupEnd } from '../engine/moves/transfer-port.ts';
import { clearRows } from '../engine/postgres/rows/clear-rows.ts';
import { readFileRow } from '../engine/postgres/rows/file-row.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import { restoreProjectInRows } from '../engine/postgres/transfer/restore-rows.ts';
import { SMALL_FILE_BYTES_MAX } from '../engine/projects/project-file.ts';
import { type BackupFacts, cipherOf, restoreSource } from '../operations/read-backup.ts';
import { projectsIn, withMadeFolder, withStorageKeys } from './open-data.ts';
import { projectsInRows, withDatabase } from './open-database.ts';
import type { StorageExporter } from './storage-exporter.ts';

/** A checked backup to restore. */
export interface RestorableBackup {
  readonly facts: BackupFacts;
  /** Reads it from its start. */
  readonly open: () => AsyncIterable<Uint8Array>;
  /** Called with the number of restored states. */
  readonly onProgress?: (entries: number) => void;
}

/** A storage into which projects are restored. */
export interface RestorePlace {
  /** The id of the storage. */
  readonly storage: string;
  /** Its projects, when it was opened. */
  readonly projects: readonly string[];
  /** The `project.json` of a project that is there already, which a restore would refuse. */
  fileOf(project: string): Promise<string | undefined>;
  /**
   * Restores a project.
   *
   * @throws AppError, also that of the key service; ProjectExists; BackupDamaged.
   */
  restore(backup: RestorableBackup): Promise<BackupEnd>;
}

/**
 * Runs `action` with a place for projects: the data folder of a stopped service, which is created if
 * necessary, or PostgreSQL beside running nodes.
 */
export function withRestorePlace<T>(
  config: BundocConfig,
  action: (place: RestorePlace) => Promise<T>,
): Promise<T> {
  const { storage } = config;
  const clock = systemClock;
  if (storage.kind === 'postgres')
    return withDatabase(storage, async (database) =>
      withStorageKeys(config, await identifyDatabase(database, clock), async (keys) => {
        return action({
          storage: keys.storage.id,
          projects: await projectsInRows(database),
          fileOf: async (project) => (await readFileRow(database, project)).text,
          restore: async ({ facts, open, onProgress }) => {
            const from = await sourceOf(facts, open, keys);
            await clearRows(database, marksOf(facts, keys));
            return restoreProjectInRows({ ...from, database, clock, ...(onProgress && { onProgress }) });
          },
        });
      }),
    );
  return withMadeFolder(config, ({ dataDir, projectsDir, tmp, disk, identity, engine }) =>
    withStorageKeys(config, identity, async (keys) =>
      action({
        storage: keys.storage.id,
        projects: await projectsIn(disk, projectsDir),
        fileOf: async (project) => {
          const directory = join(projectsDir, project);
          const names = (await disk.list(directory)) ?? [];
          if (!names.includes(PROJECT_FILE) || names.includes(MOVE_FILE)) return undefined;
          return String(await disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX));
        },
        restore: async ({ facts, open, onProgress }) => {
          const { project } = facts.head;
          const from = await sourceOf(facts, open, keys);
          await clearFolder({
            ...marksOf(facts, keys),
            directory: join(projectsDir, project),
            disk,
            keptIn: join(dataDir, MOVED_FOLDER),
            setAside: join(dataDir, SET_ASIDE_FOLDER),
          });
          const arrived = (handle: string) => engine.arrived(project, handle, from.cipher);
          const endOrphans = () => engine.endOrphans(project, from.cipher);
          const place = { projectsDirectory: projectsDir, tmp, disk, arrived, endOrphans };
          return restoreProject({ ...from, ...place, clock, ...(onProgress && { onProgress }) });
        },
      }),
    ),
  );
}

async function sourceOf(facts: BackupFacts, open: RestorableBackup['open'], keys: StorageExporter) {
  return restoreSource(facts, open, await cipherOf(facts, keys));
}

/** Judges markers. Call it only after BunKMS has released the key to this storage. */
function marksOf({ head: { project } }: BackupFacts, keys: StorageExporter) {
  return {
    project,
    onSetAside: printSetAside,
    isLeftOver: (mark: string, hasFile: boolean) =>
      isLeftOver(project, mark, hasFile, (version) => keys.exportKey(dekNameOf(project), version)),
  };
}

/** Reports the file or the text of a marker that a restore has set aside. */
function printSetAside({ project, file, text }: MarkSetAside): void {
  const where = file === undefined ? `: ${text}` : `: it is in set-aside/${file}`;
  console.error(`bundoc: a mark of ${project} that BunKMS does not confirm was set aside${where}`);
}
