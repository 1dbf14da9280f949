import { Bundoc, type Project } from '@bundoc/client';
import {
  type BundocOptions,
  bundocAccess,
  ownBundocUrl,
  type TokenSource,
} from '@bundoc/shared/cli/bundoc-access';
import { bundocCommand, type Command, parserOf } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import { readText } from '@bundoc/shared/cli/read-text';
import { defined } from '@bundoc/shared/contract/defined';
import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Environment } from '@bundoc/shared/process/config';
import { Agent, Headers, type RequestInit, fetch as undiciFetch } from 'undici';
import { profileName, readProfiles } from './profiles.ts';
import { withTokenFault } from './token-fault.ts';

/** The options that select a running service. */
export interface ServiceOptions extends BundocOptions {
  readonly profile?: string;
}

/** A service and the credentials for it. */
export interface ServiceAccess {
  readonly url: string;
  /** Where the URL is from: an option, variables, or a profile. */
  readonly source: string;
  /** What the service's own variables say, if they are set and a profile counts more. */
  readonly unusedUrl?: string | undefined;
  readonly token: TokenSource;
  /** The file of its certificate authorities; those of the system when undefined. */
  readonly caFile: string | undefined;
}

export const projectId = parserOf(projectIdSchema);
export const collectionName = parserOf(collectionNameSchema);

/** A command that works through a running service. */
export function serviceCommand(program: Command, name: string, description: string) {
  return bundocCommand(program, name, description).option(
    '--profile <name>',
    'URL and token of a profile of "bundoc login"; BUNDOC_PROFILE, or "default"',
  );
}

/** A command that works on a project of a running service. */
export function onProject(program: Command, name: string, description: string) {
  return serviceCommand(program, name, description).argument('<project>', 'its id', projectId);
}

/**
 * Selects the service from the options, else from the environment, else from a profile. The token of a
 * profile is only sent to the URL of that profile.
 *
 * @throws CommandError
 */
export async function serviceAccess(
  environment: Environment,
  options: ServiceOptions,
): Promise<ServiceAccess> {
  const isNamed = options.profile !== undefined;
  const { BUNDOC_CA_FILE } = environment;
  // A named profile counts more than the environment.
  const given = bundocAccess(isNamed ? { BUNDOC_CA_FILE } : environment, options);
  const { url, source, token, caFile } = given;
  if (token !== undefined && !isNamed) return { ...given, url: url ?? ownBundocUrl(environment), token };

  const name = profileName(environment, options);
  const profile = (await readProfiles(environment)).get(name);
  if (profile === undefined && (isNamed || environment['BUNDOC_PROFILE']))
    throw new CommandError(`there is no profile "${name}": create it with "bundoc login --profile ${name}"`);
  if (profile === undefined)
    throw new CommandError(
      'a token is needed: run "bundoc login", or give --token-file, BUNDOC_TOKEN_FILE or BUNDOC_TOKEN',
    );
  if (token === undefined && url !== undefined && !isSame(url, profile.url))
    throw new CommandError(
      `the token of profile "${name}" is for ${profile.url}, not for ${url}: give --token-file, or log in there`,
    );
  const isOfProfile = url === undefined;
  const own = isOfProfile && !isNamed ? ownUrlIfSet(environment) : undefined;
  return {
    url: url ?? profile.url,
    source: isOfProfile ? `the profile "${name}"` : source,
    unusedUrl: own === undefined || isSame(own, profile.url) ? undefined : own,
    token: token ?? profile.token,
    caFile: caFile ?? profile.ca_file,
  };
}

/** Where the service with this environment listens; undefined when it has no variables of the service. */
function ownUrlIfSet(environment: Environment): string | undefined {
  const isSet = ['BUNDOC_HOST', 'BUNDOC_PORT', 'BUNDOC_KMS_TOKEN_FILE'].some((name) => environment[name]);
  return isSet ? ownBundocUrl(environment) : undefined;
}

/** A client of the service. @throws CommandError */
export async function serviceClient(environment: Environment, options: ServiceOptions): Promise<Bundoc> {
  return clientOf(await serviceAccess(environment, options));
}

/** A project of the service. @throws CommandError */
export async function openProject(
  environment: Environment,
  options: ServiceOptions,
  id: string,
): Promise<Project> {
  return (await serviceClient(environment, options)).project(id);
}

/** Warns if the service's own variables say another URL. @throws CommandError */
export async function clientOf(access: ServiceAccess): Promise<Bundoc> {
  const { url, source, unusedUrl, token, caFile } = access;
  if (unusedUrl !== undefined)
    console.error(
      `bundoc: asking ${url} of ${source}, not ${unusedUrl} of BUNDOC_HOST and BUNDOC_PORT: choose with --url`,
    );
  const ca = caFile === undefined ? undefined : await readText(caFile);
  try {
    return new Bundoc({ url, fetch: checkedFetch(ca, source), token });
  } catch (cause) {
    throw new CommandError(
      `"${url}" of ${source} is not the URL of a service, such as http://127.0.0.1:8080`,
      { cause },
    );
  }
}

/** A request without an answer. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
  /** Where the URL is from. */
  readonly source: string;

  constructor(source: string, cause: unknown) {
    super(`no answer from the URL of ${source}`, { cause });
    this.source = source;
  }
}

function isSame(one: string, other: string): boolean {
  const plain = (text: string) => (URL.canParse(text) ? new URL(text).href.replace(/\/+$/, '') : text);
  return plain(one) === plain(other);
}

/**
 * A fetch that always checks certificates, even if `NODE_TLS_REJECT_UNAUTHORIZED` disables that, because it
 * sends a token.
 */
function checkedFetch(ca: string | undefined, source: string): typeof globalThis.fetch {
  const dispatcher = new Agent({
    connect: { rejectUnauthorized: true, ...defined({ ca }) },
  });
  // The package and the platform each declare types for the same objects.
  return ((url: URL, init: RequestInit) =>
    undiciFetch(url, { ...init, dispatcher }).then(
      (answer) => withTokenFault(answer, new Headers(init.headers).get('authorization')),
      (cause: unknown) => {
        throw new NoAnswer(source, cause);
      },
    )) as unknown as typeof globalThis.fetch;
}

let stopping: AbortController | undefined;

/** Aborted by Ctrl-C or SIGTERM; the same signal a second time ends the process. One for all callers. */
export function stopSignal(): AbortSignal {
  if (stopping !== undefined && !stopping.signal.aborted) return stopping.signal;
  const stop = new AbortController();
  stopping = stop;
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => stop.abort(new CommandError('stopped; run it again to continue')));
  return stop.signal;
}
