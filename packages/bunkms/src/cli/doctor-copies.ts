import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Checkup, checkDisk } from '@bundoc/shared/cli/checkup';
import { counted } from '@bundoc/shared/cli/counted';
import type { Environment } from '@bundoc/shared/process/config';
import { ArchivedBackups } from '../archive/archived-backups.ts';
import { CHECK_KEY } from '../archive/names.ts';
import { ARCHIVE_VARIABLE, openArchive } from '../archive/open-archive.ts';
import type { BackupDestination } from '../recovery/backup-destination.ts';
import { BACKUP_EVERY_MS } from '../recovery/backup-folder.ts';

/** The age at which the newest backup is late, milliseconds: as in docs/operations/alerts.md. */
const LATE_MS = 3 * BACKUP_EVERY_MS;
const CHECK_BYTES_MAX = 1_024;

/** Checks that the copy of the audit chain can be written: without it, restored keys come back disabled. */
export async function checkAuditCopy(checkup: Checkup, path: string): Promise<void> {
  const isFile = (await stat(path).catch(() => undefined))?.isFile() ?? true;
  if (!isFile)
    checkup.fail(
      'audit copy',
      `${path} is not a file, so the audit chain is not copied`,
      'name a file in BUNKMS_AUDIT_SHIP',
    );
  else await checkDisk(checkup, dirname(path), 'BUNKMS_AUDIT_SHIP', 'audit copy');
}

/** Checks the folder of the service's own backups, and the age of the newest one. */
export async function checkBackups(checkup: Checkup, folder: BackupDestination): Promise<void> {
  if (await checkDisk(checkup, folder.path, 'BUNKMS_BACKUP_TO', 'backup disk'))
    await checkNewest(checkup, 'backup', folder, 'BUNKMS_BACKUP_TO');
}

/**
 * Checks that the archive takes, gives and lists objects, by one object that stays: nothing may delete there.
 * Then checks the age of the newest backup.
 *
 * @param installation of `installationOf`.
 */
export async function checkArchive(
  checkup: Checkup,
  { place, dataDir }: { readonly place: string; readonly dataDir: string },
  environment: Environment,
  installation: () => Promise<string>,
): Promise<void> {
  const remedy = `correct ${ARCHIVE_VARIABLE}, or what its credential may do (docs/how-to/archive.md)`;
  await checkup.try('archive', remedy, async () => {
    await using objects = openArchive(place, environment, { dataDir });
    const body = Buffer.from('bunkms doctor\n');
    await objects.put(CHECK_KEY, body);
    const stored = await objects.get(CHECK_KEY, { maxBytes: CHECK_BYTES_MAX });
    let isListed = false;
    for await (const { key } of objects.list(CHECK_KEY)) isListed ||= key === CHECK_KEY;
    if (stored?.equals(body) !== true || !isListed) {
      checkup.fail('archive', `${objects.name} does not give back what it took`, remedy);
      return;
    }
    checkup.ok('archive', `${objects.name} takes, gives and lists objects`);
    // Nothing is spooled: the backups are only read.
    const backups = new ArchivedBackups(objects, '', installation);
    await checkNewest(checkup, 'archived backup', backups, ARCHIVE_VARIABLE);
  });
}

async function checkNewest(
  checkup: Checkup,
  check: string,
  backups: BackupDestination,
  variable: string,
): Promise<void> {
  const remedy = `look for "BunKMS was not backed up" in the log of the service, and check ${backups.path} (${variable})`;
  await checkup.try(check, remedy, async () => {
    const nowMs = Date.now();
    await backups.read(nowMs);
    if (backups.newestMs === 0) {
      checkup.warn(check, `there is no backup in ${backups.path}`, remedy);
      return;
    }
    const ageMs = Math.max(0, nowMs - backups.newestMs);
    const hours = Math.floor(ageMs / BACKUP_EVERY_MS);
    const age = hours < 2 ? counted(Math.floor(ageMs / 60_000), 'minute') : counted(hours, 'hour');
    const found = `the newest backup in ${backups.path} is ${age} old`;
    if (ageMs < LATE_MS) checkup.ok(check, found);
    else checkup.warn(check, found, remedy);
  });
}
