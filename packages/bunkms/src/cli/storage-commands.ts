import { generationSchema, storageIdSchema } from '@bundoc/shared/contract/storages';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { Command } from 'commander';
import type { JsonOption } from './key.ts';
import { parserOf } from './option-parsers.ts';
import { type ClaimAllOptions, claimAll, showStorage, takeOver } from './storage.ts';

/** `bunkms storage …`: the storages of Bundoc that hold keys. */
export function registerStorageCommands(program: Command, environment: Environment): void {
  const storage = program.command('storage').description('storages of Bundoc, which hold keys');
  const command = (name: string, description: string) =>
    storage
      .command(name)
      .description(description)
      .argument('<id>', 'the storage, as Bundoc shows it', parserOf(storageIdSchema))
      .option('--json', 'print JSON');

  command('show', 'shows the generation of a storage').action((id: string, options: JsonOption) =>
    showStorage(environment, id, options),
  );
  command('take-over', 'lets another copy of a storage take its place; the former one stops')
    .option(
      '--generation <id>',
      'the copy with this generation; by default the next one that starts',
      parserOf(generationSchema),
    )
    .option('--force', 'do not wait until the leases of the storage have ended')
    .action((id: string, options: Parameters<typeof takeOver>[2]) => takeOver(environment, id, options));
  command('claim-all', 'claims the keys of all projects that have content in a storage')
    .option(
      '--from <folder>',
      "Bundoc's data folder; by default, reads names of projects from standard input, one per line",
    )
    .action((id: string, options: ClaimAllOptions) => claimAll(environment, id, options));
}
