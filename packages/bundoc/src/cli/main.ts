#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { exitCodeOf, lineOf } from './errors.ts';
import { verify } from './verify.ts';

const environment = process.env;
const program = new Command('bundoc')
  .description(
    'Checks and repairs the data folder while the service is stopped; reads the same BUNDOC_ variables as the service.',
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

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(`bundoc: ${lineOf(error)}`);
    process.exitCode = exitCodeOf(error);
  }
}
