import { completionScript, SHELLS, type Shell } from '@bundoc/shared/cli/completion';
import { scopeSchema, tokenTypeSchema } from '@bundoc/shared/contract/tokens';
import type { Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { guardMemory } from '@bundoc/shared/runtime/memory-exposure';
import { VERSION } from '@bundoc/shared/runtime/version';
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { registerAuditCommands } from './audit-commands.ts';
import type { CertificateRequest } from './certificates.ts';
import { type DoctorOptions, doctorCommand } from './doctor.ts';
import { EXIT, exitCodeOf } from './errors.ts';
import { type InitOptions, init } from './init.ts';
import { type InspectOptions, inspectTokenCommand } from './inspect-token.ts';
import { registerKekCommands } from './kek-commands.ts';
import { registerKeyCommands } from './key-commands.ts';
import { collect } from './option-parsers.ts';
import { registerRecoveryCommands } from './recovery-commands.ts';
import { status } from './status.ts';
import { registerStorageCommands } from './storage-commands.ts';
import {
  type IssueOptions,
  issueToken,
  listTokens,
  revokeToken,
  TOKEN_STATES,
  type TokenFilter,
} from './token.ts';

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 } as const;

/** `90s`, `15m`, `1h`, `30d` → seconds. */
function parseDuration(text: string): number {
  const [, amount, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (amount === undefined || unit === undefined) throw new InvalidArgumentError('give 90s, 15m, 1h or 30d');
  return Number(amount) * SECONDS[unit as keyof typeof SECONDS];
}

/** `folder=name,name` → the certificate for the folder. */
function collectCertificate(text: string, earlier: readonly CertificateRequest[]): CertificateRequest[] {
  const [directory, list, ...rest] = text.split('=');
  const names = (list ?? '').split(',');
  if (!directory || rest.length > 0 || names.some((name) => !/^[a-z0-9._:-]{1,253}$/.test(name)))
    throw new InvalidArgumentError('give folder=name,name');
  return [...earlier, { directory, names }];
}

/**
 * Runs `bunkms` with these arguments. Prints the output of the command, and its error as one line.
 *
 * @returns the exit code (docs/keys.md).
 */
export async function runBunkms(args: readonly string[], environment: Environment): Promise<number> {
  try {
    // Commands open keys, like the service.
    guardMemory(environment);
    await programOf(environment).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT.usage;
    console.error(`bunkms: ${lineOf(error)}`);
    return exitCodeOf(error);
  }
}

/** Every command of `bunkms`. */
function programOf(environment: Environment): Command {
  const program = new Command('bunkms')
    .description(
      'Administers the key service on its own machine; reads the same BUNKMS_ variables as the service.',
    )
    .version(VERSION)
    // Options follow their command, so that a command and its subcommand may have an option of the same name.
    .enablePositionalOptions()
    .exitOverride();

  program
    .command('init')
    .description('creates the missing parts of an installation')
    .option('--create-kek', 'create the KEK file if it does not exist')
    .option('--service-token <file>', 'keep a valid token for Bundoc in this file')
    .option('--authority <folder>', 'keep a private authority for certificates in this folder')
    .option(
      '--certificate <folder=names>',
      'keep a certificate for these names in this folder',
      collectCertificate,
      [],
    )
    .option('--json', 'print JSON')
    .action((options: InitOptions) => init(environment, options));

  registerTokenCommands(program, environment);
  registerKeyCommands(program, environment);
  registerStorageCommands(program, environment);
  registerKekCommands(program, environment);

  registerAuditCommands(program, environment);
  registerRecoveryCommands(program, environment);

  program
    .command('status')
    .description('shows the state of the installation; exit code 1 when it is sealed')
    .option('--json', 'print JSON')
    .action((options: { json?: true }) => status(environment, options));
  program
    .command('doctor')
    .description(
      'checks configuration, KEK, disk, store, tokens, certificates, and the running server, its clock and its version; says what to do; exit code 1 when something fails',
    )
    .option('--url <url>', 'of the API listener; from the configuration when it is not given')
    .option('--ca-file <file>', 'the authority of its certificate; by default those of the system')
    .option('--token-file <file>', 'also check this token, such as the service token of Bundoc')
    .option('--json', 'print JSON')
    .action((options: DoctorOptions) => doctorCommand(environment, options));
  program
    .command('completion')
    .description('prints a script that completes commands and options: source <(bunkms completion bash)')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell: Shell) => console.log(completionScript(shell, program)));
  return program;
}

function registerTokenCommands(program: Command, environment: Environment): void {
  const token = program.command('token').description('service and client tokens');
  token
    .command('issue')
    .description('prints a new token')
    .requiredOption('--typ <type>', 'service or client')
    .requiredOption('--sub <subject>', 'who the token is for')
    .requiredOption('--scope <scopes>', 'separated by spaces')
    .option('--keys <globs>', 'key names that it is for', collect, [])
    .option('--project <ids>', 'projects that it is for', collect, [])
    .option('--projects <ids>', 'the same as --project', collect, [])
    .option('--ttl <duration>', 'how long it is valid, such as 15m or 30d', parseDuration)
    .option(
      '--may-issue-scope <scopes>',
      'scopes of the tokens that it may issue, separated by spaces; unless it may issue everything, kms:admin then reaches only those tokens',
    )
    .option('--may-issue-keys <globs>', 'key names that those may be for', collect, [])
    .option('--may-issue-project <ids>', 'projects that those may be for', collect, [])
    .option('--may-issue-ttl <duration>', 'how long those may be valid at most', parseDuration)
    .option('--json', 'also print the claims of the token')
    .action((options: IssueOptions) => issueToken(environment, options));
  token
    .command('list')
    .description('lists issued tokens: subject, scopes, issuer and expiry; never the tokens themselves')
    .option('--sub <subject>', 'for one subject')
    .addOption(new Option('--typ <type>', 'of one type').choices(tokenTypeSchema.options))
    .addOption(new Option('--scope <scope>', 'with this scope').choices(scopeSchema.options))
    .option('--project <id>', 'that are valid for this project')
    .option('--issuer <jti>', 'issued by this token; "cli" for the command line')
    .addOption(new Option('--state <state>', 'in one state').choices(TOKEN_STATES))
    .option('--json', 'print JSON')
    .action((options: TokenFilter) => listTokens(environment, options));
  token
    .command('inspect')
    .description('explains what a token is for, what it may do and when it expires; works offline')
    .argument('[token]', '- or nothing: standard input', '-')
    .option('--jwks <file>', 'check its signature with these keys, as in /.well-known/jwks.json')
    .option('--json', 'print JSON')
    .action((text: string, options: InspectOptions) => inspectTokenCommand(text, options));
  token
    .command('revoke')
    .argument('<jti>', 'the token; this also revokes its renewals')
    .option('--cascade', 'also revoke the tokens that it issued, directly or indirectly')
    .option('--json', 'print JSON')
    .action((jti: string, options: { cascade?: true; json?: true }) =>
      revokeToken(environment, jti, options),
    );
}
