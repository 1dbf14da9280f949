// The names in a folder of `bundoc backup --all` (docs/formats/backup-folder.md), which both services read.

export const MANIFEST_FILE = 'manifest.ndjson';
export const JOURNAL_FILE = 'manifest.journal';
/** Maximum bytes of either. A longer file is refused before it is read. */
export const MANIFEST_BYTES_MAX = 268_435_456;

const BACKUP = '.backup';

/** The name of a project's file. */
export function backupFileOf(project: string): string {
  return `${project}${BACKUP}`;
}

/** The text before `.backup` in the name of a file; undefined for any other name. */
export function projectOfBackupFile(name: string): string | undefined {
  return name.endsWith(BACKUP) ? name.slice(0, -BACKUP.length) : undefined;
}
