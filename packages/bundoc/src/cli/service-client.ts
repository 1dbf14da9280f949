import { Bundoc } from '@bundoc/client';
import { defined } from '@bundoc/shared/contract/defined';
import type { Environment } from '@bundoc/shared/runtime/config';
import { Agent, type RequestInit, fetch as undiciFetch } from 'undici';
import { CommandError } from './errors.ts';
import { DEFAULT_PROFILE, profileName, readProfiles } from './profiles.ts';
import { readText } from './read-text.ts';

/** The options that select a running service. */
export interface ServiceOptions {
  readonly url?: string;
  readonly tokenFile?: string;
  readonly profile?: string;
  readonly caFile?: string;
}

/** A service and the credentials for it. */
export interface ServiceAccess {
  readonly url: string;
  readonly token: string | (() => Promise<string>);
  /** The file of its certificate authorities; those of the system when undefined. */
  readonly caFile: string | undefined;
}

const URL_DEFAULT = 'http://127.0.0.1:8080';

/** The URL from the options or the environment, without a profile. */
export function urlOf(environment: Environment, { url }: ServiceOptions): string {
  return url ?? (environment['BUNDOC_URL'] || URL_DEFAULT);
}

/**
 * Selects the service from the options, else from the environment, else from a profile. The token of a
 * profile is only sent to the URL of that profile. A token file is read whenever the client needs a token, so
 * a replaced file takes effect.
 *
 * @throws CommandError
 */
export async function serviceAccess(
  environment: Environment,
  options: ServiceOptions,
): Promise<ServiceAccess> {
  const isNamed = options.profile !== undefined;
  const file = options.tokenFile ?? (isNamed ? undefined : environment['BUNDOC_TOKEN_FILE'] || undefined);
  const token = isNamed ? undefined : environment['BUNDOC_TOKEN'] || undefined;
  const caFile = options.caFile ?? (environment['BUNDOC_CA_FILE'] || undefined);
  const own = file === undefined ? token : async () => (await readText(file)).trim();
  if (own !== undefined && !isNamed) return { url: urlOf(environment, options), token: own, caFile };

  const name = profileName(options.profile ?? (environment['BUNDOC_PROFILE'] || DEFAULT_PROFILE));
  const profile = (await readProfiles(environment)).get(name);
  if (profile === undefined && (isNamed || environment['BUNDOC_PROFILE']))
    throw new CommandError(`there is no profile "${name}": create it with "bundoc login --profile ${name}"`);
  if (profile === undefined)
    throw new CommandError(
      'a token is needed: run "bundoc login", or give --token-file, BUNDOC_TOKEN_FILE or BUNDOC_TOKEN',
    );
  const wanted = options.url ?? (isNamed ? undefined : environment['BUNDOC_URL'] || undefined);
  if (own === undefined && wanted !== undefined && !isSame(wanted, profile.url))
    throw new CommandError(
      `the token of profile "${name}" is for ${profile.url}, not for ${wanted}: give --token-file, or log in there`,
    );
  return { url: wanted ?? profile.url, token: own ?? profile.token, caFile: caFile ?? profile.ca_file };
}

/** A client of the service. @throws CommandError */
export async function serviceClient(environment: Environment, options: ServiceOptions): Promise<Bundoc> {
  return clientOf(await serviceAccess(environment, options));
}

/** @throws CommandError */
export async function clientOf({ url, token, caFile }: ServiceAccess): Promise<Bundoc> {
  const ca = caFile === undefined ? undefined : await readText(caFile);
  try {
    return new Bundoc({ url, fetch: checkedFetch(ca), token });
  } catch (error) {
    throw new CommandError(`"${url}" is not the URL of a service`, { cause: error });
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
function checkedFetch(ca: string | undefined): typeof globalThis.fetch {
  const dispatcher = new Agent({
    connect: { rejectUnauthorized: true, ...defined({ ca }) },
  });
  // The package and the platform each declare types for the same objects.
  return ((url: URL, init: RequestInit) =>
    undiciFetch(url, { ...init, dispatcher })) as unknown as typeof globalThis.fetch;
}

/** Aborted by Ctrl-C or SIGTERM; the same signal a second time ends the process. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => stop.abort(new CommandError('stopped; run it again to continue')));
  return stop.signal;
}
