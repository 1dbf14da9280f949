import { completionScript, SHELLS, type Shell } from '@bundoc/shared/cli/completion';
import type { Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { guardMemory } from '@bundoc/shared/runtime/memory-exposure';
import { VERSION } from '@bundoc/shared/runtime/version';
import { Argument, Command, CommanderError } from 'commander';
import { type AcceptLossOptions, acceptLoss } from './accept-loss.ts';
import { backupCommand, restoreCommand, verifyBackupCommand } from './backup.ts';
import { type ExportCommandOptions, exportCommand } from './bulk-export.ts';
import { type ImportCommandOptions, importCommand } from './bulk-import.ts';
import { carry } from './carry.ts';
import { registerDataCommands } from './data-commands.ts';
import { doctorCommand } from './doctor.ts';
import { exitCodeOf, remedyOf } from './errors.ts';
import { type MoveOptions, moveCommand } from './move.ts';
import { OutputClosed } from './output.ts';
import { repair } from './repair.ts';
import type { ServiceOptions } from './service-client.ts';
import { serviceOptions as service } from './service-options.ts';
import { stats } from './stats.ts';
import { verify } from './verify.ts';

/**
 * Runs `bundoc` with these arguments. Prints the results of the command to the console, and its error as one
 * line.
 *
 * @returns the exit code: 0 for success, 1 when the command found a fault, 2 when it could not run.
 */
export async function runBundoc(args: readonly string[], environment: Environment): Promise<number> {
  let isGood = true;
  const onFault = () => {
    isGood = false;
  };
  try {
    // Like the service, commands handle keys.
    guardMemory(environment);
    await programOf(environment, onFault).parseAsync(args, { from: 'user' });
    return isGood ? 0 : 1;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof OutputClosed) return isGood ? 0 : 1;
    const remedy = remedyOf(error);
    console.error(`bundoc: ${lineOf(error)}${remedy === undefined ? '' : `; ${remedy}`}`);
    return exitCodeOf(error);
  }
}

/** Every command of `bundoc`. @param onFault called by a command that ran and found a fault. */
function programOf(environment: Environment, onFault: () => void): Command {
  const program = new Command('bundoc')
    .description(
      'Maintains the data folder while the service is stopped, with the same BUNDOC_ variables; or works through the running service.',
    )
    .version(VERSION)
    .exitOverride();

  registerDataCommands(program, environment, onFault);
  registerTransferCommands(program, environment, onFault);
  registerFolderCommands(program, environment, onFault);

  service(
    program
      .command('doctor')
      .description(
        'checks URL, TLS, token, clock and versions, and disk and KEK where the service runs; says what to do; exit code 1 when something fails',
      ),
  ).action(async (options: ServiceOptions & { json?: true }) => {
    if (!(await doctorCommand(environment, options))) onFault();
  });

  program
    .command('completion')
    .description('prints a script that completes commands and options: source <(bundoc completion bash)')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell: Shell) => console.log(completionScript(shell, program)));

  return program;
}

/** Registers the commands that transfer documents or whole projects. */
function registerTransferCommands(program: Command, environment: Environment, onFault: () => void): void {
  service(
    program
      .command('import')
      .description('writes the documents of an NDJSON file into a project; an interrupted run continues')
      .argument('<project>')
      .argument('<file>', '- for standard input')
      .option('--collection <name>', 'the target collection; by default the _collection of each line')
      .option(
        '--state <file>',
        'where to keep how far it is; <file>.import-state by default, none for standard input',
      ),
  ).action((project: string, file: string, options: ImportCommandOptions) =>
    importCommand(environment, project, file, options),
  );

  service(
    program
      .command('export')
      .description(
        'writes the documents of a project as NDJSON; run it again to continue an interrupted export',
      )
      .argument('<project>')
      .argument('<file>', '- for standard output')
      .option('--collection <name>', 'only this collection; by default all')
      .option('--since <position>', 'changes since an earlier export, which printed this position')
      .option('--deletions', 'write deletions, too, as {"_id":…,"_collection":…,"_deleted":true}'),
  ).action(async (project: string, file: string, options: ExportCommandOptions) => {
    if (!(await exportCommand(environment, project, file, options))) onFault();
  });

  service(
    program
      .command('backup')
      .description('backs up a project of the running service, while it is in use, as one sealed file')
      .argument('<project>')
      .argument('<file>', '- for standard output'),
  ).action((project: string, file: string, options: ServiceOptions & { json?: true }) =>
    backupCommand(environment, project, file, options),
  );

  service(
    program
      .command('move')
      .description(
        'moves a project between files and PostgreSQL, sealed as it is: with --to from where BUNDOC_STORAGE says; without, through the running service on ' +
          'files to where its BUNDOC_MOVE_TO says, while the project is used',
      )
      .argument('<project>')
      .option('--to <storage>', 'postgres://… or files (BUNDOC_DATA_DIR)'),
  ).action((project: string, options: MoveOptions) => moveCommand(environment, project, options));
}

/** Registers the commands that work directly on data folders and backups. */
function registerFolderCommands(program: Command, environment: Environment, onFault: () => void): void {
  program
    .command('verify')
    .description('opens and checks every document; changes nothing; exit code 1 when something is wrong')
    .argument('[project]', 'one project; by default all')
    .option('--json', 'print JSON')
    .action(async (project: string | undefined, options: { json?: true }) => {
      if (!(await verify(environment, project, options))) onFault();
    });

  program
    .command('stats')
    .description('shows what each project contains')
    .argument('[project]', 'one project; by default all')
    .option('--json', 'print JSON')
    .action(async (project: string | undefined, options: { json?: true }) => {
      if (!(await stats(environment, project, options))) onFault();
    });

  program
    .command('repair')
    .description('repairs a project that answers project_damaged; deletes nothing')
    .argument('<project>')
    .option('--accept-loss', 'give up acknowledged commits that are damaged in the log')
    .option('--json', 'print JSON')
    .action((project: string, options: { acceptLoss?: true; json?: true }) =>
      repair(environment, project, options),
    );

  program
    .command('carry')
    .description("copies the commits that only the log has into their projects' folders, without any key")
    .option('--json', 'print JSON')
    .action(async (options: { json?: true }) => {
      if (!(await carry(environment, options))) onFault();
    });

  program
    .command('accept-loss')
    .description(
      'lists the projects that a copy of the storage lacks since it took over, or accepts their loss, so that they can be created again',
    )
    .argument('[project]', 'a project of the list')
    .option('--all', 'accept the loss of all of them')
    .option('--frames', 'accept the loss of damaged frames of the log, for all projects')
    .option('--json', 'print JSON')
    .action((project: string | undefined, options: AcceptLossOptions) =>
      acceptLoss(environment, project, options),
    );

  program
    .command('restore')
    .description('restores a project from a backup; needs its key, and refuses if the project exists')
    .argument('<file>')
    .option('--json', 'print JSON')
    .action((file: string, options: { json?: true }) => restoreCommand(environment, file, options));

  program
    .command('verify-backup')
    .description(
      'checks that a backup is complete and unchanged, without a key; needs neither service nor data folder',
    )
    .argument('<file>')
    .option('--with-key', 'fetch the key, and check that every document in it is authentic')
    .option('--json', 'print JSON')
    .action((file: string, options: { withKey?: true; json?: true }) =>
      verifyBackupCommand(environment, file, options),
    );
}
