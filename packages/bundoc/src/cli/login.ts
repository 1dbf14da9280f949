import { resolve } from 'node:path';
import { hasCode } from '@bundoc/client/error';
import { bundocAccess, ownBundocUrl, tokenText } from '@bundoc/shared/cli/bundoc-access';
import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import { printToken } from '@bundoc/shared/cli/explain-token';
import { readText } from '@bundoc/shared/cli/read-text';
import { defined } from '@bundoc/shared/contract/defined';
import type { Environment } from '@bundoc/shared/process/config';
import { profileName, profileSchema, profilesFile, readProfiles, writeProfiles } from './profiles.ts';
import {
  clientOf,
  type ServiceAccess,
  type ServiceOptions,
  serviceAccess,
  serviceCommand,
} from './service-client.ts';
import { faultOfToken } from './token-fault.ts';

/** `bundoc login|logout|token`: the URL of a service and the token for it. */
export const addTokenCommands: AddCommands = (program, environment) => {
  serviceCommand(
    program,
    'login',
    'keeps the URL of a service and a token for it; the token comes from --token-file or standard input',
  ).action((options) => login(environment, options));
  command(program, 'logout', 'removes a profile that "bundoc login" saved')
    .option('--profile <name>', 'BUNDOC_PROFILE, or "default"')
    .action(async (options) => {
      const name = profileName(environment, options);
      const profiles = new Map(await readProfiles(environment));
      if (!profiles.delete(name)) throw new CommandError(`there is no profile "${name}"`);
      await writeProfiles(environment, profiles);
      console.error(
        `bundoc: profile "${name}" is removed; its token is valid until it expires or is revoked`,
      );
    });
  serviceCommand(
    program,
    'token',
    'explains what a token is for, what it may do and when it expires; works offline',
  )
    .argument('[token]', '- for standard input; by default the token that commands use')
    .option('--jwks <file>', 'check its signature with these keys, as BunKMS publishes them')
    .action(async (given, options) => {
      const used = async () => tokenText((await serviceAccess(environment, options)).token);
      const text = given === undefined ? await used() : given === '-' ? await readText('-') : given;
      await printToken(text, options);
    });
};

/**
 * Saves the URL of a service and a token as a profile, once the service has accepted the token. The token
 * comes from `--token-file` or standard input, never from the command line, which other users can see.
 */
async function login(environment: Environment, options: ServiceOptions): Promise<void> {
  const name = profileName(environment, options);
  const { url = ownBundocUrl(environment), source, caFile: given } = bundocAccess(environment, options);
  const caFile = given === undefined ? undefined : resolve(given);
  const token = (await givenToken(options.tokenFile)).trim();
  requireUsable(token);
  await requireAccepted({ url, source, token, caFile });
  const profile = profileSchema.safeParse({ url, token, ...defined({ ca_file: caFile }) });
  if (!profile.success) throw new CommandError(`"${url}" is not an http or https URL`);
  await writeProfiles(environment, new Map([...(await readProfiles(environment)), [name, profile.data]]));
  console.error(`bundoc: profile "${name}" is for ${url}; it is in ${profilesFile(environment)}`);
  for (const variable of ['BUNDOC_TOKEN', 'BUNDOC_TOKEN_FILE'])
    if ((environment[variable] ?? '') !== '')
      console.error(`bundoc: ${variable} is set, and commands use it before the profile: unset it`);
}

function givenToken(file = '-'): Promise<string> {
  return file === '-' && process.stdin.isTTY ? typedToken() : readText(file);
}

/** Reads a line that a person types or pastes, without echo. */
async function typedToken(): Promise<string> {
  const { stdin, stderr } = process;
  stderr.write('token: ');
  stdin.setRawMode(true);
  try {
    let typed = '';
    for await (const chunk of stdin)
      for (const mark of String(chunk)) {
        if (mark === '\r' || mark === '\n' || mark === '\u0004') return typed;
        if (mark === '\u0003') throw new CommandError('stopped');
        typed = mark === '\u007f' || mark === '\b' ? typed.slice(0, -1) : typed + mark;
      }
    return typed;
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}

/** @throws CommandError unless it is a token for Bundoc that has not expired. */
function requireUsable(token: string): void {
  if (token === '')
    throw new CommandError('there is no token: give it on standard input, or its file with --token-file');
  const fault = faultOfToken(token, Date.now());
  if (fault !== undefined) throw new CommandError(fault);
}

/** @throws BundocError when the service refuses the token. */
async function requireAccepted(access: ServiceAccess): Promise<void> {
  const bundoc = await clientOf(access);
  try {
    await bundoc.projectsPage({ pageSize: 1 });
  } catch (error) {
    // The service accepts a token that must not list projects.
    if (!hasCode(error, 'forbidden')) throw error;
  }
}
