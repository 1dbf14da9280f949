import { closeSync, constants, fstatSync } from 'node:fs';
import {
  backupFileOf,
  JOURNAL_FILE,
  MANIFEST_BYTES_MAX,
  MANIFEST_FILE,
  projectOfBackupFile,
} from '@bundoc/shared/contract/backup-folder';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { clearPartOfEnd } from '@bundoc/shared/files/backup-end';
import { codeOf, type DataFolder, requireFile, UnsafeEntry } from '@bundoc/shared/files/data-folder';
import { listSync, readSmallSync } from '@bundoc/shared/files/small-files';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';

/**
 * A folder of `bundoc backup --all` (docs/formats/backup-folder.md), as far as the keys of its projects are
 * concerned. Nothing in it is trusted: a wrapped key shows by itself whether BunKMS has wrapped it.
 */

const MANIFEST_FILES: readonly string[] = [MANIFEST_FILE, JOURNAL_FILE];

const lineSchema = z.tuple([
  z.literal('project'),
  z.looseObject({ project: projectIdSchema, gone: z.looseObject({ why: z.string() }).optional() }),
]);

/** Whether a folder has backups of projects. */
export function hasBackups(folder: DataFolder): boolean {
  return listSync(folder, '').some((name) => MANIFEST_FILES.includes(name));
}

/**
 * The projects with a backup in the folder, in order. Those that the manifest calls deleted, or moved to
 * another storage, are left out: `bundoc restore` restores none of them.
 */
export function backedUpProjects(folder: DataFolder): string[] {
  const gone = goneProjects(folder);
  return listSync(folder, '')
    .flatMap((name) => projectOfBackupFile(name) ?? [])
    .filter((project) => projectIdSchema.safeParse(project).data === project && !gone.has(project))
    .sort();
}

function goneProjects(folder: DataFolder): ReadonlySet<string> {
  const gone = new Set<string>();
  // A line of the journal replaces that of the manifest.
  for (const name of MANIFEST_FILES)
    for (const text of (readSmallSync(folder, name, MANIFEST_BYTES_MAX) ?? '').toString().split('\n')) {
      const line = lineSchema.safeParse(parseJson(text)).data;
      if (line === undefined) continue;
      const [, { project, gone: left }] = line;
      if (left === undefined || left.why === 'not_found') gone.delete(project);
      else gone.add(project);
    }
  return gone;
}

/**
 * The bytes of `project.json` in the backup of a project. The documents before it are skipped, and no hash is
 * checked: `bundoc restore` does so.
 *
 * @returns why it cannot be read; undefined when there is no backup.
 */
export function projectFileInBackup(
  folder: DataFolder,
  project: string,
  bytesMax: number,
): Buffer | string | undefined {
  const name = backupFileOf(project);
  let file: number | undefined;
  try {
    file = folder.openSync(name, constants.O_RDONLY);
    requireFile(name, fstatSync(file), Number.POSITIVE_INFINITY);
    return clearPartOfEnd(file, bytesMax) ?? 'is no complete backup';
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    return error instanceof UnsafeEntry ? error.problem : `cannot be read (${codeOf(error)})`;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
