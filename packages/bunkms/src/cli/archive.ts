import { join } from 'node:path';
import { type AddCommands, command, parserFor } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { quoted } from '@bundoc/shared/cli/quoted';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { Environment } from '@bundoc/shared/process/config';
import { parseInstallation } from '../archive/names.ts';
import { ARCHIVE_VARIABLE, openArchive } from '../archive/open-archive.ts';
import { type ArchivedBackup, backupsIn, bytesOf, installationsIn } from '../archive/read-backups.ts';
import { lastRecord, linesFrom } from '../archive/read-chain.ts';
import { stampOf } from '../recovery/backup-folder.ts';
import { DamagedFile } from '../recovery/errors.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';

/** An ISO time with an offset. */
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})$/;
const COPY = 'audit.ndjson';
const MIB = 1_048_576;

/** `bunkms archive …`: what the service has shipped. No command needs the KEK, a store or a service. */
export const addArchiveCommands: AddCommands = (program, environment) => {
  const group = program
    .command('archive')
    .description('the backups and the audit chain in an archive (BUNKMS_ARCHIVE), without any key');
  archiveCommand(
    group,
    'list',
    'shows the backups, and up to which record the archive has the audit chain',
  ).action(({ from, installation, ...options }) =>
    withArchive(environment, { from, installation }, (archive) => list(archive, options)),
  );
  archiveCommand(group, 'fetch', 'fetches a backup and the audit chain after it, for "bunkms restore"')
    .requiredOption('--to <folder>', 'the folder for both files; it is made if it does not exist')
    .option(
      '--at <time>',
      'the last backup before this time, such as 2026-12-03T09:00:00Z; the newest by default',
      parserFor('a time such as 2026-12-03T09:00:00Z', timeMsOf),
    )
    .action(({ from, installation, to, at, ...options }) =>
      withArchive(environment, { from, installation }, (archive) =>
        fetch(archive, { to, atMs: at }, options),
      ),
    );
};

function archiveCommand(parent: Parameters<typeof command>[0], name: string, description: string) {
  return command(parent, name, description)
    .option('--from <place>', 'the archive: a folder, or s3://bucket/prefix?…; BUNKMS_ARCHIVE by default')
    .option(
      '--installation <id>',
      'the installation, if the archive has several',
      parserFor('8 hexadecimal digits', parseInstallation),
    );
}

function timeMsOf(text: string): number | undefined {
  const ms = TIME.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}

/** The archive of one installation. */
interface InstallationArchive {
  readonly objects: ObjectStorage;
  readonly installation: string;
}

/**
 * Runs `action` with the archive of the named installation, or of the only one.
 *
 * @throws CliFailure; ConfigError; ObjectStorageError.
 */
async function withArchive(
  environment: Environment,
  options: { readonly from: string | undefined; readonly installation: string | undefined },
  action: (archive: InstallationArchive) => Promise<void>,
): Promise<void> {
  const { from } = options;
  const setting = from ?? environment[ARCHIVE_VARIABLE];
  if (setting === undefined || setting === '')
    throw new UsageError(`name the archive: --from <folder or s3://bucket/prefix>, or ${ARCHIVE_VARIABLE}`);
  await using objects = openArchive(setting, environment, {
    variable: from === undefined ? ARCHIVE_VARIABLE : '--from',
  });
  const present = await installationsIn(objects);
  const { installation = present[0] } = options;
  if (installation === undefined)
    throw new CliFailure(`${objects.name} has no archive of BunKMS`, EXIT.notFound);
  if (!present.includes(installation))
    throw new CliFailure(
      `${objects.name} has no archive of the installation ${installation}, but of ${present.join(', ') || 'none'}`,
      EXIT.notFound,
    );
  if (options.installation === undefined && present.length > 1)
    throw new CliFailure(
      `${objects.name} has archives of several installations: name one by --installation: ${present.join(', ')}`,
    );
  await action({ objects, installation });
}

async function list({ objects, installation }: InstallationArchive, options: JsonOption): Promise<void> {
  const backups: ArchivedBackup[] = [];
  for await (const backup of backupsIn(objects, installation)) backups.push(backup);
  const last = await lastRecord(objects, installation, backups.at(-1)?.seq ?? 0);
  const facts = backups.map(({ timeMs, seq, bytes }) => ({
    created_at: isoOf(timeMs),
    bytes,
    last_record: seq,
  }));
  print(options, { archive: objects.name, installation, backups: facts, last_record: last }, () => [
    `installation ${installation}, ${counted(facts.length, 'backup')}, the audit chain up to record ${last}`,
    ...facts.map(({ created_at, bytes, last_record }) =>
      rowLine(created_at, `${(bytes / MIB).toFixed(1)} MiB`, `up to record ${last_record}`),
    ),
  ]);
}

interface FetchInput {
  readonly to: string;
  /** Milliseconds since 1970; the newest backup when undefined. */
  readonly atMs: number | undefined;
}

/** @throws CliFailure when there is no such backup, or a file exists; DamagedFile; ObjectStorageError. */
async function fetch(
  { objects, installation }: InstallationArchive,
  { to, atMs }: FetchInput,
  options: JsonOption,
): Promise<void> {
  const { backup, later } = await chosenBackup({ objects, installation }, atMs);
  if (later !== undefined)
    console.error(
      `bunkms: the backup of ${isoOf(later.timeMs)} has more records, up to ${later.seq}: if a clock was wrong, or another store shipped to this place, name it by --at`,
    );
  makeFolder(to);
  const file = join(to, `bunkms-${installation}-${stampOf(backup.timeMs)}.backup`);
  await create(file, bytesOf(objects, backup));
  const inArchive = await lastRecord(objects, installation, backup.seq);
  const copy = inArchive >= backup.seq ? join(to, COPY) : undefined;
  const written = { last: inArchive };
  if (copy !== undefined)
    await createCopy(copy, { objects, installation }, { file, seq: backup.seq, written });
  const { last } = written;
  const created_at = isoOf(backup.timeMs);
  const evidence = copy === undefined ? '' : ` --audit-copy ${quoted(copy)}`;
  const next = `bunkms restore ${quoted(file)}${evidence}`;
  print(
    options,
    {
      installation,
      file,
      created_at,
      audit_copy: copy ?? null,
      last_record: Math.max(last, backup.seq),
      next,
    },
    () => [
      `${file}: the backup of ${created_at}, ${(backup.bytes / MIB).toFixed(1)} MiB`,
      copy === undefined
        ? `the chain in the archive ends with record ${last}, before record ${backup.seq} of the backup: keys come back disabled, and tokens revoked. An earlier backup may have a copy (--at)`
        : `${copy}: the audit chain up to record ${last}`,
      `Next: ${next}`,
    ],
  );
}

async function chosenBackup(
  { objects, installation }: InstallationArchive,
  atMs = Number.POSITIVE_INFINITY,
): Promise<{ readonly backup: ArchivedBackup; readonly later: ArchivedBackup | undefined }> {
  let first: ArchivedBackup | undefined;
  let chosen: ArchivedBackup | undefined;
  let most: ArchivedBackup | undefined;
  for await (const backup of backupsIn(objects, installation)) {
    first ??= backup;
    if (backup.timeMs > atMs) continue;
    chosen = backup;
    if (backup.seq > (most?.seq ?? 0)) most = backup;
  }
  // A restore loses records, so the newest backup may have fewer than one before it.
  if (chosen !== undefined)
    return { backup: chosen, later: most !== undefined && most.seq > chosen.seq ? most : undefined };
  throw new CliFailure(
    first === undefined
      ? `${objects.name} has no complete backup of the installation ${installation}`
      : `the first backup is of ${isoOf(first.timeMs)}: name that or a later time by --at`,
    EXIT.notFound,
  );
}

interface CopyInput {
  /** The file of the backup. */
  readonly file: string;
  /** The last record of the backup. */
  readonly seq: number;
  /** The last record that was written. */
  readonly written: { last: number };
}

/** @throws DamagedFile that says what can be done without the copy. */
async function createCopy(
  path: string,
  { objects, installation }: InstallationArchive,
  { file, seq, written }: CopyInput,
): Promise<void> {
  const lines = async function* () {
    for await (const { line, record } of linesFrom(objects, installation, seq)) {
      written.last = record;
      yield line;
    }
  };
  try {
    await create(path, lines());
  } catch (cause) {
    if (!(cause instanceof DamagedFile)) throw cause;
    const line = `${cause.message}. The backup is complete: ${file}; "bunkms restore ${quoted(file)}" without --audit-copy brings keys back disabled, and tokens revoked`;
    throw new DamagedFile(line, { cause });
  }
}

async function create(path: string, content: AsyncIterable<Uint8Array>): Promise<void> {
  if (await createPrivateFile(path, content)) return;
  throw new CliFailure(`the file ${path} exists already: name another folder`, EXIT.conflict);
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
