import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { backupFileOf, JOURNAL_FILE, MANIFEST_FILE } from '@bundoc/shared/contract/backup-folder';
import { printable } from '@bundoc/shared/logs/printable';
import { type BackupSet, readBackups } from '../operations/backup-manifest.ts';
import { checkEntry, surplusFiles } from './backup-folder.ts';
import { MIB } from './transfer-bar.ts';

/** What is wrong with a file of the folder. */
interface Finding {
  readonly file: string;
  readonly fault: string;
  readonly problem: string;
}

/**
 * `bundoc verify-backup <folder>`: checks without a key that the folder has exactly the backups that its
 * manifest names, each complete and unchanged. Nothing authenticates the manifest. Its SHA-256 is printed, so
 * that it can be compared with the one that the backup printed.
 *
 * @throws CommandError with exit code 1 when something is wrong.
 */
export async function verifyFolder(folder: string, { json }: JsonOption): Promise<void> {
  const backups = await requireBackups(folder);
  const findings = [...findingsOfRun(backups)];
  const entries = [...backups.entries.values()];
  let bytes = 0;
  {
    using bar = createProgress('{bar} {percentage}% {mib} MiB, {eta_formatted} left');
    bar.start(
      Math.max(
        1,
        entries.reduce((sum, entry) => sum + entry.bytes, 0),
      ),
      { mib: '0.0' },
    );
    for (const entry of entries) {
      let read = 0;
      const checked = await checkEntry(folder, entry, (now) => {
        read = now;
        bar.update(bytes + now, { mib: ((bytes + now) / MIB).toFixed(1) });
      });
      bytes += read;
      // The operator may remove the backup of a project that is gone.
      if ('facts' in checked || (checked.fault === 'missing' && entry.gone !== undefined)) continue;
      findings.push({ file: backupFileOf(entry.project), ...checked });
    }
  }
  for (const file of await surplusFiles(folder, backups))
    findings.push({ file, fault: 'surplus', problem: 'is not in the manifest' });
  const { endedAt = null, sha256 = null } = backups;
  const gone = entries.flatMap((entry) =>
    entry.gone === undefined ? [] : [{ project: entry.project, ...entry.gone }],
  );
  if (json)
    console.log(JSON.stringify({ folder, projects: entries.length, bytes, endedAt, sha256, gone, findings }));
  else {
    const found = findings.length === 0 ? 'all good' : counted(findings.length, 'finding');
    console.log(
      `${counted(entries.length, 'project')}, ${(bytes / MIB).toFixed(1)} MiB, ${found}; backed up until ${endedAt ?? 'the interruption'}; SHA-256 of ${MANIFEST_FILE} ${sha256 ?? '-'}`,
    );
    for (const { file, problem } of findings) console.error(`bundoc: ${printable(file)} ${problem}`);
  }
  if (findings.length > 0) throw faultFound();
}

/** @throws CommandError when the folder has no backups. */
export async function requireBackups(folder: string): Promise<BackupSet> {
  const backups = await readBackups(folder);
  if (backups === undefined)
    throw new CommandError(
      `${folder} has no ${MANIFEST_FILE}: name a folder of "bundoc backup --all", or one file`,
    );
  return backups;
}

function* findingsOfRun({ isUnfinished, failed }: BackupSet): Generator<Finding, void, void> {
  if (isUnfinished)
    yield {
      file: JOURNAL_FILE,
      fault: 'unfinished',
      problem: 'shows that a backup has not ended: wait for it, or run it again',
    };
  for (const { project, code } of failed)
    yield {
      file: MANIFEST_FILE,
      fault: 'not_backed_up',
      problem: `says that ${project} was not backed up: ${printable(code)}`,
    };
}
