import {
  Argument,
  Command,
  CommanderError,
  type CommandUnknownOpts,
  Help,
  InvalidArgumentError,
  Option,
} from '@commander-js/extra-typings';
import type { z } from 'zod';
import { formatError } from '../logs/error-line.ts';
import { WORDS } from '../logs/fault-words.ts';
import { type Environment, findUnknown, type KnownVariables } from '../process/config.ts';
import { guardMemory } from '../process/memory-exposure.ts';
import { VERSION } from '../process/version.ts';
import { completionScript, SHELLS } from './completion.ts';
import { CommandError } from './errors.ts';

export { type Command, Option };

/** Adds commands to a program. The types of their arguments and options follow from how they are declared. */
export type AddCommands = (program: Command, environment: Environment) => void;

export interface ProgramSpec {
  readonly name: string;
  readonly description: string;
  /** Commands warn of others with the prefix. */
  readonly variables: KnownVariables;
  readonly commands: readonly AddCommands[];
  /** The exit code for an error that is no {@link CommandError}. */
  readonly exitCodeOf: (error: unknown) => number;
  /** What to do about an error, if its message does not say it. */
  readonly remedyOf?: (error: unknown) => string | undefined;
}

/**
 * Runs a program with these arguments. Commands print their results to the console; an error is one line.
 *
 * @returns the exit code: 0 for success, 2 for arguments that are not understood, else that of the error.
 */
export async function runProgram(
  spec: ProgramSpec,
  args: readonly string[],
  environment: Environment,
): Promise<number> {
  const { name, exitCodeOf, remedyOf } = spec;
  try {
    // Like the service, commands handle keys.
    guardMemory(environment);
    await programOf(spec, environment).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const line = formatError(error);
    const remedy = remedyOf?.(error);
    if (line !== '')
      console.error(
        `${name}: ${line}${remedy === undefined ? '' : `${line.endsWith('?') ? '' : ';'} ${remedy}`}`,
      );
    return error instanceof CommandError ? error.exitCode : exitCodeOf(error);
  }
}

/** The program with all its commands. */
export function programOf(spec: ProgramSpec, environment: Environment): Command {
  const { name, description, variables, commands } = spec;
  const program: Command = new Command(name).description(description).version(VERSION);
  // Options follow their command, so that a command and its subcommand may have an option of the same name.
  program.enablePositionalOptions().exitOverride();
  program.configureHelp(HELP);
  program.hook('preAction', (_program, action) => {
    // Among the findings there.
    if (action.name() === 'doctor') return;
    findUnknown(variables, environment, (sentence) => console.error(`${name}: ${sentence}`));
  });
  for (const add of commands) add(program, environment);
  refuseOptionsAsValues(program);
  program
    .command('completion')
    .description(`prints a script that completes commands and options: source <(${name} completion bash)`)
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell) => console.log(completionScript(shell, program)));
  return program;
}

/** An option without its value would take the option behind it as the value. */
function refuseOptionsAsValues({ options, commands }: CommandUnknownOpts): void {
  for (const option of options) {
    const { required, parseArg } = option;
    if (!required) continue;
    option.argParser((text, earlier: unknown) => {
      if (options.some(({ short, long }) => text === short || text === long))
        throw new InvalidArgumentError(`That is an option: the value of ${option.long} is missing.`);
      return parseArg === undefined ? text : parseArg(text, earlier);
    });
  }
  for (const command of commands) refuseOptionsAsValues(command);
}

const PLAIN = new Help();
/** Columns of a help text whose width is unknown. */
const HELP_WIDTH = 80;
/** Help that fits a terminal of 60 columns. */
const HELP: Partial<Help> & ThisType<Help> = {
  minWidthToWrap: 20,
  // An empty list is no default that a reader needs.
  optionDescription: (option) => PLAIN.optionDescription(option).replace(' (default: [])', ''),
  // Each command says its arguments itself.
  subcommandTerm: (sub) => sub.name(),
  styleUsage(usage) {
    return this.boxWrap(usage, (this.helpWidth ?? HELP_WIDTH) - 'Usage: '.length).replaceAll(
      '\n',
      '\n       ',
    );
  },
  padWidth: (command, helper) =>
    Math.min(PLAIN.padWidth(command, helper), Math.floor((helper.helpWidth ?? HELP_WIDTH) * 0.4)),
  formatItem(term, termWidth, description, helper) {
    const item = (name: string) => Help.prototype.formatItem.call(this, name, termWidth, description, helper);
    return description && helper.displayWidth(term) > termWidth ? `  ${term}\n${item('')}` : item(term);
  },
};

/** A list for the end of a command's help. @param items terms of one width, with their descriptions. */
export function helpItems(heading: string, items: readonly (readonly [term: string, description: string])[]) {
  return ({ command }: { readonly command: CommandUnknownOpts }): string => {
    const helper = command.createHelp();
    const helpWidth = command.configureOutput().getOutHelpWidth?.() ?? HELP_WIDTH;
    helper.prepareContext({ helpWidth });
    const lines = items.map(([term, description]) =>
      helper.formatItem(term, term.length, description, helper),
    );
    return ['', helper.boxWrap(heading, helpWidth), ...lines].join('\n');
  };
}

/** Adds a command. Every command has `--json`. */
export function command(parent: Command, name: string, description: string) {
  return parent.command(name).description(description).option('--json', 'print JSON');
}

/** The options that select a running Bundoc. */
export function bundocCommand(parent: Command, name: string, description: string) {
  return command(parent, name, description)
    .option('--url <url>', 'URL of Bundoc; BUNDOC_URL, or where BUNDOC_HOST and BUNDOC_PORT say')
    .option('--token-file <file>', 'a token for it; BUNDOC_TOKEN_FILE, or the token itself in BUNDOC_TOKEN')
    .option('--ca-file <file>', 'the authority of its certificate; BUNDOC_CA_FILE, or those of the system');
}

/** A parser of an argument or option from a schema. */
export function parserOf<S extends z.ZodType>(schema: S): (text: string) => z.infer<S> {
  return (text) => {
    const result = schema.safeParse(text, WORDS);
    if (!result.success) throw new InvalidArgumentError(String(result.error.issues[0]?.message));
    return result.data;
  };
}

/** Parses the input of a command. @throws CommandError with every fault. */
export function parsed<S extends z.ZodType>(schema: S, input: unknown): z.infer<S> {
  const result = schema.safeParse(input, WORDS);
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) =>
    [path.join('.'), message].filter(Boolean).join(': '),
  );
  throw new CommandError(faults.join('; '));
}

/** A parser that tells what is expected when `parse` returns undefined. */
export function parserFor<T>(expected: string, parse: (text: string) => T | undefined): (text: string) => T {
  return (text) => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(`give ${expected}`);
    return value;
  };
}

/** A parser of an option that may be repeated. */
export function each<T>(parse: (text: string) => T): (text: string, earlier: readonly T[]) => readonly T[] {
  return (text, earlier) => [...earlier, parse(text)];
}

/** For lists with commas, with repeated options, or both. */
export function collect(text: string, earlier: readonly string[]): readonly string[] {
  return [...earlier, ...text.split(',').filter((word) => word !== '')];
}

export function wholeNumber(min: number, max: number): (text: string) => number {
  const range = max === Number.MAX_SAFE_INTEGER ? `, at least ${min}` : ` from ${min} to ${max}`;
  return parserFor(`a whole number${range}`, (text) => {
    const count = Number(text);
    return /^\d{1,16}$/.test(text) && count >= min && count <= max ? count : undefined;
  });
}
