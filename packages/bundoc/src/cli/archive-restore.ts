import { resolve } from 'node:path';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { quoted } from '@bundoc/shared/cli/quoted';
import type { ArchiveReader } from '../engine/files/archive/lineage.ts';
import {
  NothingToRestore,
  planRestore,
  type Restored,
  type RestorePlan,
  restoreArchive,
} from '../engine/files/archive/restore.ts';
import { firstMoment } from './archive-moments.ts';
import { isoOf, objectsIn, type StorageArchive } from './archive-place.ts';
import { diskRefusal, withTarget } from './archive-target.ts';
import { MIB } from './transfer-bar.ts';

interface RestoreInput {
  readonly to: string;
  /** Milliseconds since 1970; the newest moment when undefined. */
  readonly atMs: number | undefined;
}

/** How many projects are named. */
const NAMED_MAX = 5;

/**
 * `bundoc archive restore`: makes the data folder of a moment. It needs no key. A repeated command begins the
 * folder that an interrupted one has left from its start.
 *
 * @throws CommandError; DataFolderInUse; ArchiveDamaged; ObjectStorageError.
 */
export async function restoreFromArchive(
  archive: StorageArchive,
  { to, atMs }: RestoreInput,
  options: JsonOption,
): Promise<void> {
  const { objects, storage, reader } = archive;
  const folder = resolve(to);
  const plan = await planOf(reader, atMs);
  const bytes = await bytesOf(archive, plan);
  const moment = isoOf(plan.last.timeMs);
  const begin = () => {
    if (plan.newer !== undefined)
      console.error(
        `bundoc: a newer chain goes up to ${isoOf(plan.newer.timeMs)}, and has no complete copy of all projects yet: what was written after ${moment} is missing`,
      );
    console.error(
      `bundoc: restoring storage ${storage} as of ${moment} from ${objects.name} into ${folder}: ${counted(plan.objects, 'object')}, about ${mibOf(bytes)} MiB`,
    );
  };
  const restored = await withTarget(folder, { storage, moment }, async () => {
    begin();
    return await restoreWithBar(reader, plan, folder, bytes);
  }).catch((error: unknown) => {
    throw diskRefusal(folder, error) ?? error;
  });
  printRestored({ storage, moment, folder, objects: plan.objects }, restored, options);
}

async function restoreWithBar(
  reader: ArchiveReader,
  plan: RestorePlan,
  folder: string,
  bytes: number,
): Promise<Restored> {
  using bar = createProgress('{bar} {percentage}% {mib} MiB, {eta_formatted} left');
  bar.start(Math.max(1, bytes), { mib: '0.0' });
  const onProgress = (_objects: number, read: number) => bar.update(read, { mib: mibOf(read) });
  return await restoreArchive(reader, plan, folder, { onProgress });
}

/** @throws CommandError that names the first moment, when the asked one is before. */
export async function planOf(reader: ArchiveReader, atMs: number | undefined): Promise<RestorePlan> {
  try {
    return await planRestore(reader, atMs);
  } catch (cause) {
    if (!(cause instanceof NothingToRestore)) throw cause;
    const chains = await reader.chains();
    const moments = await Promise.all(chains.map((chain) => firstMoment(reader, chain)));
    const known = moments.filter((ms) => ms !== undefined).filter((ms) => ms > (atMs ?? 0));
    const line =
      known.length === 0
        ? 'no moment can be restored yet: the first copy of all projects is not complete; "bundoc archive status" shows when it is'
        : `the first moment that can be restored is ${isoOf(Math.min(...known))}: name that or a later one by --at`;
    throw new CommandError(line, { cause });
  }
}

async function bytesOf(archive: StorageArchive, { chain, round, last }: RestorePlan): Promise<number> {
  let bytes = 0;
  for await (const one of objectsIn(archive, chain, round.first, last.n)) bytes += one.bytes;
  return bytes;
}

interface Restoration {
  readonly storage: string;
  readonly moment: string;
  readonly folder: string;
  readonly objects: number;
}

function printRestored(
  { storage, moment, folder, objects }: Restoration,
  { projects, bytes, unfinished }: Restored,
  options: JsonOption,
): void {
  const next = nextSteps(folder, storage);
  print(options, { storage, moment, folder, objects, bytes, projects, unfinished, next }, () => [
    `restored ${counted(projects, 'project')} of storage ${storage} as of ${moment}: ${counted(objects, 'object')}, ${mibOf(bytes)} MiB`,
    ...unfinishedLines(unfinished),
    'Next:',
    ...next.map(({ step, command }, at) => `${at + 1}. ${step}:\n   ${command}`),
  ]);
}

function unfinishedLines(unfinished: readonly string[]): readonly string[] {
  if (unfinished.length === 0) return [];
  const named = unfinished.slice(0, NAMED_MAX).join(', ');
  const more = unfinished.length > NAMED_MAX ? ' and others' : '';
  return [
    `missing: ${counted(unfinished.length, 'project')} that had just arrived, ${named}${more}: a later moment may have them`,
  ];
}

/** What an operator does next. The order matters: no key is released before the take-over. */
function nextSteps(folder: string, storage: string) {
  return [
    {
      step: 'if BunKMS is lost, too, restore it, take newer keys from this folder, and start it',
      command: `bunkms restore <backup> --audit-copy <copy> && bunkms recover --from ${quoted(folder)}`,
    },
    {
      step: 'where BunKMS runs, let this folder take over (--force: the lost machine is gone, and never starts again)',
      command: `bunkms storage take-over ${storage} --force`,
    },
    {
      step: 'set the data folder, with BUNDOC_ARCHIVE as before, and start Bundoc; it answers storage_superseded until step 2',
      command: `export BUNDOC_DATA_DIR=${quoted(folder)}`,
    },
  ];
}

function mibOf(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}
