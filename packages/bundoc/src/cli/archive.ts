import { type AddCommands, parserFor } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { type BundocConfig, readConfig } from '../config.ts';
import { type ArchiveReader, type Chain, firstOf } from '../engine/files/archive/lineage.ts';
import { headIn } from '../engine/files/archive/restore.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { drillArchive } from './archive-drill.ts';
import { exportFromArchive } from './archive-export.ts';
import { firstMoment } from './archive-moments.ts';
import { archiveCommand, isoOf, placeCommand, type StorageArchive, withArchive } from './archive-place.ts';
import { pruneArchive } from './archive-prune.ts';
import { restoreFromArchive } from './archive-restore.ts';
import { archiveStatus } from './archive-status.ts';
import { verifyArchive } from './archive-verify.ts';
import { withKeys } from './open-data.ts';
import { projectId } from './service-client.ts';
import { MIB } from './transfer-bar.ts';

/** An ISO time with an offset. */
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})$/;

/** `bundoc archive …`: the archive of a data folder. Only `export` and `drill` need BunKMS. */
export const addArchiveCommands: AddCommands = (program, environment) => {
  const group = program
    .command('archive')
    .description('the archive of a data folder (BUNDOC_ARCHIVE); only export and drill need keys');
  archiveCommand(group, 'list', 'shows what the archive has, and which moments it can restore').action(
    ({ from, storage, ...options }) =>
      withArchive(environment, { from, storage }, (archive) => listChains(archive, options)),
  );
  archiveCommand(group, 'verify', 'reads every object, and names each fault')
    .option('--newest-chain', 'read only what the newest moments need, and not former chains')
    .action(({ from, storage, newestChain = false, ...options }) =>
      withArchive(environment, { from, storage }, (archive) => verifyArchive(archive, newestChain, options)),
    );
  archiveCommand(group, 'restore', 'makes the data folder of a moment; run it again after an interruption')
    .requiredOption('--to <folder>', 'the new data folder; it is empty, or does not exist')
    .option(
      '--at <time>',
      'the last moment before this time, such as 2026-12-03T09:00:00Z; the newest by default',
      time,
    )
    .action(({ from, storage, to, at, ...options }) =>
      withArchive(environment, { from, storage }, (archive) =>
        restoreFromArchive(archive, { to, atMs: at }, options),
      ),
    );
  archiveCommand(
    group,
    'export',
    'writes a project at a moment to standard output as NDJSON; needs BunKMS, and the settings of the service for it',
  )
    .requiredOption('--project <project>', 'the project', projectId)
    .option('--at <time>', 'the last moment before this time; the newest by default', time)
    .action(({ from, storage, project, at, ...options }) =>
      withArchive(environment, { from, storage }, (archive) =>
        withAnyKeys(environment, {}, (keys) =>
          exportFromArchive(archive, { project, atMs: at, keys }, options),
        ),
      ),
    );
  archiveCommand(
    group,
    'drill',
    'restores the newest moment into a temporary folder (TMPDIR), and opens random projects; needs BunKMS, as export',
  )
    .option('--projects <count>', 'how many projects it opens; 10 by default', sampleSize)
    .action(({ from, storage, projects: sample = 10, ...options }) =>
      withArchive(environment, { from, storage }, (archive) =>
        withAnyKeys(environment, { purpose: 'drill' }, (keys, { dataDir }) =>
          drillArchive(archive, { sample, keys, dataDir }, options),
        ),
      ),
    );
  archiveCommand(
    group,
    'prune',
    'deletes what only moments before a limit need; its credentials may delete, those of the service may not',
  )
    .option('--keep <duration>', 'keep the moments of this time, such as 12h, 30d or 8w', duration)
    .option('--before <time>', 'or those from this time on, such as 2026-12-03T09:00:00Z', time)
    .option('--dry-run', 'only say what would be deleted')
    .action(({ from, storage, keep, before, dryRun = false, ...options }) => {
      if ((keep === undefined) === (before === undefined))
        throw new CommandError('say what stays by one of --keep <duration> and --before <time>');
      const limitMs = before ?? systemClock.now() - (keep ?? 0);
      return withArchive(environment, { from, storage }, (archive) =>
        pruneArchive(archive, { limitMs, dryRun }, options),
      );
    });
  placeCommand(
    group,
    'status',
    'compares what the service has shipped (BUNDOC_DATA_DIR) with the archive; works while it runs',
  ).action(({ from, ...options }) => archiveStatus(environment, from, options));
};

/** Asks for keys without a storage, whose generation is that of the running service. */
function withAnyKeys<T>(
  environment: Environment,
  asking: { readonly purpose?: 'drill' },
  action: (keys: ProjectPlace['keys'], config: BundocConfig) => Promise<T>,
): Promise<T> {
  const config = readConfig(environment);
  return withKeys(config, (kms) =>
    action({ exportKey: (name, version) => kms.exportKey(name, version, asking) }, config),
  );
}

const sampleSize = parserFor('a number from 1 to 10000', (text) =>
  /^[1-9]\d{0,3}$|^10000$/.test(text) ? Number(text) : undefined,
);
const time = parserFor('a time such as 2026-12-03T09:00:00Z', timeMsOf);
const HOURS = { h: 1, d: 24, w: 168 } as const;
const duration = parserFor('12h, 30d or 8w', (text) => {
  const [, amount, unit] = /^(\d{1,5})([hdw])$/.exec(text) ?? [];
  return amount === undefined ? undefined : Number(amount) * HOURS[unit as keyof typeof HOURS] * 3_600_000;
});

function timeMsOf(text: string): number | undefined {
  const ms = TIME.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}

/** `bundoc archive list`. */
async function listChains({ objects, storage, reader }: StorageArchive, options: JsonOption): Promise<void> {
  const all = await reader.chains();
  const chains = await Promise.all(all.map((chain, at) => chainFacts(reader, chain, at === 0)));
  print(options, { archive: objects.name, storage, chains }, () => [
    `storage ${storage}, ${counted(chains.length, 'chain')}`,
    ...chains.map((one) =>
      rowLine(
        one.newest ? 'newest' : 'former',
        `${one.first_at} to ${one.last_at}`,
        one.restorable_from === null ? 'no moment to restore' : `restorable from ${one.restorable_from}`,
        counted(one.objects, 'object'),
        `${(one.bytes / MIB).toFixed(1)} MiB`,
        `${one.missing} missing`,
      ),
    ),
  ]);
  const { damaged } = reader;
  for (const { error } of damaged) console.error(`bundoc: ${error.message}`);
  // After `prune` a chain still has a moment.
  const beheaded = chains.filter((one) => one.pruned && one.restorable_from === null);
  for (const one of beheaded) console.error(`bundoc: the chain up to ${one.last_at} lost its beginning`);
  const isFaulty = damaged.length + beheaded.length > 0 || chains.some(({ missing }) => missing > 0);
  if (isFaulty) throw faultFound();
}

async function chainFacts(reader: ArchiveReader, chain: Chain, newest: boolean) {
  const { tip, bytes, missing } = chain;
  const first = firstOf(chain);
  const fromMs = await firstMoment(reader, chain);
  return {
    newest,
    first_at: isoOf((await headIn(reader, chain, first)).timeMs),
    last_at: isoOf(tip.timeMs),
    restorable_from: fromMs === undefined ? null : isoOf(fromMs),
    restorable_to: fromMs === undefined ? null : isoOf(tip.timeMs),
    pruned: chain.isPruned,
    first_object: first,
    last_object: tip.n,
    objects: tip.n - first + 1 - missing.length,
    missing: missing.length,
    bytes,
  };
}
