import type { OrderBy } from '@bundoc/client/query';
import type { Environment } from '@bundoc/shared/runtime/config';
import { type Command, InvalidArgumentError } from 'commander';
import { type ChangesCommandOptions, changesCommand } from './changes.ts';
import {
  createCommand,
  type DataOptions,
  deleteCommand,
  getCommand,
  patchCommand,
  putCommand,
  type WriteCommandOptions,
} from './documents.ts';
import { collectionsCommand, projectsCommand } from './lists.ts';
import { loginCommand, logoutCommand } from './login.ts';
import { type QueryCommandOptions, queryCommand } from './query.ts';
import type { ServiceOptions } from './service-client.ts';
import { serviceOptions } from './service-options.ts';
import { tokenCommand } from './show-token.ts';

const FILE = 'a file; - for standard input';

/**
 * Registers the commands that work on documents of a running service, and those that store its URL and token.
 */
export function registerDataCommands(program: Command, environment: Environment, onFault: () => void): void {
  registerTokenCommands(program, environment, onFault);
  registerDocumentCommands(program, environment, onFault);
  registerReadingCommands(program, environment, onFault);
}

function commandOf(program: Command, name: string, description: string): Command {
  return serviceOptions(program.command(name).description(description));
}

function registerTokenCommands(program: Command, environment: Environment, onFault: () => void): void {
  commandOf(
    program,
    'login',
    'keeps the URL of a service and a token for it; the token comes from --token-file or standard input',
  ).action((options: ServiceOptions) => loginCommand(environment, options));
  program
    .command('logout')
    .description('removes a profile that "bundoc login" saved')
    .option('--profile <name>', 'BUNDOC_PROFILE, or "default"')
    .action((options: ServiceOptions) => logoutCommand(environment, options));
  commandOf(
    program,
    'token',
    'explains what a token is for, what it may do and when it expires; works offline',
  )
    .argument('[token]', '- for standard input; by default the token that commands use')
    .option('--jwks <file>', 'check its signature with these keys, as BunKMS publishes them')
    .action(async (token: string | undefined, options: Parameters<typeof tokenCommand>[2]) => {
      if (!(await tokenCommand(environment, token, options))) onFault();
    });
}

/** Registers the commands that read or write one document. */
function registerDocumentCommands(program: Command, environment: Environment, onFault: () => void): void {
  const onDocument = (name: string, description: string) =>
    commandOf(program, name, description).argument('<project>').argument('<collection>').argument('<id>');

  onDocument('get', 'prints a document byte for byte; exit code 1 if it does not exist')
    .option('--content', 'without the metadata: as it was written')
    .action(
      async (project: string, collection: string, id: string, options: DataOptions & { content?: true }) => {
        if (!(await getCommand(environment, { project, collection, id }, options))) onFault();
      },
    );
  onDocument('put', 'makes or replaces a document by the text of a file, to the byte')
    .argument('[file]', FILE, '-')
    .option('--if-match <revision>', 'only if this is its revision')
    .option('--if-none-match', 'only if it does not exist')
    .action((project: string, collection: string, id: string, file: string, options: WriteCommandOptions) =>
      putCommand(environment, { project, collection, id }, file, options),
    );
  commandOf(program, 'create', 'makes a document under its _id, or under a new one')
    .argument('<project>')
    .argument('<collection>')
    .argument('[file]', FILE, '-')
    .action((project: string, collection: string, file: string, options: DataOptions) =>
      createCommand(environment, { project, collection }, file, options),
    );
  onDocument('patch', 'changes parts of a document: an object is a merge patch, an array a JSON Patch')
    .argument('[file]', FILE, '-')
    .option('--if-match <revision>', 'only if this is its revision')
    .action((project: string, collection: string, id: string, file: string, options: WriteCommandOptions) =>
      patchCommand(environment, { project, collection, id }, file, options),
    );
  onDocument('delete', 'deletes a document; exit code 1 when there is none')
    .option('--if-match <revision>', 'only if this is its revision')
    .action(async (project: string, collection: string, id: string, options: WriteCommandOptions) => {
      if (!(await deleteCommand(environment, { project, collection, id }, options))) onFault();
    });
}

/** Registers the commands that read many documents or describe projects and collections. */
function registerReadingCommands(program: Command, environment: Environment, onFault: () => void): void {
  commandOf(
    program,
    'query',
    'prints the documents that a condition holds for; all of a collection without one',
  )
    .argument('<project>')
    .argument('<collection>')
    .option('--where <json>', 'the condition (docs/query.md); - for standard input, @file for a file')
    .option('--order <field[:desc]>', 'may be repeated', collectOrder, [])
    .option('--fields <paths>', 'the only members to print, separated by commas', collectPaths, [])
    .option('--limit <count>', 'how many at most', countOf)
    .option('--count', 'print how many there are')
    .option('--explain', 'say on standard error how the answer was found')
    .action(async (project: string, collection: string, options: QueryCommandOptions) => {
      if (!(await queryCommand(environment, { project, collection }, options))) onFault();
    });
  commandOf(program, 'changes', 'prints what has changed, each document once, at its last change')
    .argument('<project>')
    .option('--collection <name>', 'of one collection')
    .option('--since <position>', 'changes after a position that an earlier run printed, or "now"')
    .option('--documents', 'each with its document')
    .option('--follow', 'follow changes until Ctrl-C')
    .option('--limit <count>', 'how many at most', countOf)
    .action((project: string, options: ChangesCommandOptions) =>
      changesCommand(environment, project, options),
    );
  commandOf(program, 'collections', 'prints the collections of a project, or how one of them is defined')
    .argument('<project>')
    .argument('[collection]')
    .action((project: string, collection: string | undefined, options: DataOptions) =>
      collectionsCommand(environment, { project, collection }, options),
    );
  commandOf(program, 'projects', 'prints the projects that the token is for, or what one of them holds')
    .argument('[project]')
    .action((project: string | undefined, options: DataOptions) =>
      projectsCommand(environment, project, options),
    );
}

function countOf(text: string): number {
  const count = Number(text);
  if (!/^\d{1,12}$/.test(text) || count === 0)
    throw new InvalidArgumentError('give a whole number from 1 on');
  return count;
}

function collectOrder(text: string, earlier: readonly OrderBy[]): OrderBy[] {
  const [, field, direction] = /^([^:]+?)(?::(asc|desc))?$/.exec(text) ?? [];
  if (field === undefined) throw new InvalidArgumentError('give a field, or field:desc');
  return [
    ...earlier,
    { field, ...(direction === undefined ? {} : { direction: direction as 'asc' | 'desc' }) },
  ];
}

function collectPaths(text: string, earlier: readonly string[]): string[] {
  return [...earlier, ...text.split(',').filter((path) => path !== '')];
}
