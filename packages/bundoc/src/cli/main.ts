#!/usr/bin/env node
import { lineOf } from '@bundoc/shared/error-line';
import { guardMemory } from '@bundoc/shared/memory-exposure';
import { Command, CommanderError } from 'commander';
import { exitCodeOf } from './errors.ts';
import { move } from './move.ts';
import { repair } from './repair.ts';
import { stats } from './stats.ts';
import { verify } from './verify.ts';

const environment = process.env;
const program = new Command('bundoc')
  .description(
    'Checks, repairs and moves what is stored: the data folder while the service is stopped, PostgreSQL beside it. Reads the same BUNDOC_ variables as the service.',
  )
  .exitOverride();

program
  .command('verify')
  .description('opens and checks every document; changes nothing; exit code 1 when something is wrong')
  .argument('[project]', 'all projects when none is named')
  .option('--json', 'print JSON')
  .action(async (project: string | undefined, options: { json?: true }) => {
    if (!(await verify(environment, project, options))) process.exitCode = 1;
  });

program
  .command('stats')
  .description('what each project holds')
  .argument('[project]', 'all projects when none is named')
  .option('--json', 'print JSON')
  .action(async (project: string | undefined, options: { json?: true }) => {
    if (!(await stats(environment, project, options))) process.exitCode = 1;
  });

program
  .command('repair')
  .description('makes a project whole again that is refused as project_damaged; deletes nothing')
  .argument('<project>')
  .option('--accept-loss', 'give up acknowledged commits that are damaged in the journal')
  .option('--json', 'print JSON')
  .action((project: string, options: { acceptLoss?: true; json?: true }) =>
    repair(environment, project, options),
  );

program
  .command('move')
  .description(
    'moves a project between files and PostgreSQL, sealed as it is; from where BUNDOC_STORAGE says',
  )
  .argument('<project>')
  .requiredOption('--to <storage>', 'postgres://… or files (BUNDOC_DATA_DIR)')
  .action((project: string, options: { to: string }) => move(environment, project, options));

try {
  // Commands open keys, as the service does.
  guardMemory(environment);
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(`bundoc: ${lineOf(error)}`);
    process.exitCode = exitCodeOf(error);
  }
}
