import { resolve } from 'node:path';
import { hasCode } from '@bundoc/client/error';
import { inspectToken, NotAToken } from '@bundoc/shared/cli/explain-token';
import { defined } from '@bundoc/shared/contract/defined';
import type { Environment } from '@bundoc/shared/runtime/config';
import { CommandError } from './errors.ts';
import {
  DEFAULT_PROFILE,
  profileName,
  profileSchema,
  profilesFile,
  readProfiles,
  writeProfiles,
} from './profiles.ts';
import { readText } from './read-text.ts';
import { clientOf, type ServiceOptions, urlOf } from './service-client.ts';

/**
 * Saves the URL of a service and a token as a profile, once the service has accepted the token. The token
 * comes from `--token-file` or standard input, never from the command line, which other users can see.
 */
export async function loginCommand(environment: Environment, options: ServiceOptions): Promise<void> {
  const name = profileName(options.profile ?? (environment['BUNDOC_PROFILE'] || DEFAULT_PROFILE));
  const url = urlOf(environment, options);
  const given = options.caFile ?? (environment['BUNDOC_CA_FILE'] || undefined);
  const caFile = given === undefined ? undefined : resolve(given);
  const token = (await tokenText(options.tokenFile)).trim();
  requireUsable(token);
  await requireAccepted({ url, token, caFile });
  const profile = profileSchema.safeParse({
    url,
    token,
    ...defined({ ca_file: caFile }),
  });
  if (!profile.success) throw new CommandError(`"${url}" is not an http or https URL`);
  await writeProfiles(environment, new Map([...(await readProfiles(environment)), [name, profile.data]]));
  console.error(`bundoc: profile "${name}" is for ${url}; it is in ${profilesFile(environment)}`);
}

/** Removes a profile. */
export async function logoutCommand(
  environment: Environment,
  options: Pick<ServiceOptions, 'profile'>,
): Promise<void> {
  const name = profileName(options.profile ?? (environment['BUNDOC_PROFILE'] || DEFAULT_PROFILE));
  const profiles = new Map(await readProfiles(environment));
  if (!profiles.delete(name)) throw new CommandError(`there is no profile "${name}"`);
  await writeProfiles(environment, profiles);
  console.error(`bundoc: profile "${name}" is removed; its token is valid until it expires or is revoked`);
}

function tokenText(file = '-'): Promise<string> {
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
  try {
    const { aud, exp } = inspectToken(token).claims;
    if (aud !== 'bundoc')
      throw new CommandError(
        'the token is for BunKMS: a token for Bundoc has scopes that begin with "docs:"',
      );
    if (exp * 1_000 <= Date.now())
      throw new CommandError(`the token expired at ${new Date(exp * 1_000).toISOString()}: get a new one`);
  } catch (error) {
    throw error instanceof NotAToken ? new CommandError(`that is no token: ${error.message}`) : error;
  }
}

/** @throws BundocError when the service refuses the token. */
async function requireAccepted(access: Parameters<typeof clientOf>[0]): Promise<void> {
  const bundoc = await clientOf(access);
  try {
    await bundoc.projectsPage({ limit: 1 });
  } catch (error) {
    // The service accepts a token that must not list projects.
    if (!hasCode(error, 'forbidden')) throw error;
  }
}
