import { type Command, collect, each, parserFor } from '@bundoc/shared/cli/command';
import type { JsonOption } from '@bundoc/shared/cli/print';
import type { Environment } from '@bundoc/shared/process/config';
import { backup, verifyBackup } from './backup.ts';
import { receipt } from './open-kms.ts';
import { type RecoverCliOptions, recover } from './recover.ts';
import { type RestoreCliOptions, restoreBackup } from './restore.ts';

/** An empty name, as from an unset variable, must not restore without evidence. */
const auditFile = parserFor('the names of files', (text) => (text === '' ? undefined : text));
const auditFiles = (text: string, earlier: readonly string[]) => collect(auditFile(text), earlier);

/** `bunkms backup` and the commands for recovery. */
export function registerRecoveryCommands(program: Command, environment: Environment): void {
  const backups = program
    .command('backup')
    .description('writes an encrypted backup of the whole store to a new file; the service may run')
    .enablePositionalOptions()
    .argument('<file>')
    .option('--json', 'print JSON')
    .action((file: string, options: JsonOption) => backup(environment, file, options));
  backups
    .command('verify')
    .description('checks a backup and everything in it; needs the KEK and no store')
    .argument('<file>')
    .option('--json', 'print JSON')
    .action((file: string, options: JsonOption) => verifyBackup(environment, file, options));
  program
    .command('restore')
    .description(
      'restores a backup into an empty data folder; without a copy of the audit chain, its keys come back disabled',
    )
    .argument('<file>')
    .option('--audit-copy <files>', 'the copy of the audit chain, its files in their order', auditFiles, [])
    .option('--receipt <seq:hash>', 'a record that the restore must know; may be repeated', each(receipt), [])
    .option('--json', 'print JSON')
    .action((file: string, options: RestoreCliOptions) => restoreBackup(environment, file, options));
  program
    .command('recover')
    .description(
      "rebuilds lost keys from the projects in Bundoc's data folder, or from backups of them; both services may run",
    )
    .requiredOption('--from <folder>', "Bundoc's data folder, or a folder of backups with its manifest")
    .option('--dry-run', 'say what would be done, and change nothing')
    .option('--json', 'print JSON')
    .action((options: RecoverCliOptions) => recover(environment, options));
}
