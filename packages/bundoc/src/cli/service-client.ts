import { readFile } from 'node:fs/promises';
import { Bundoc } from '@bundoc/client';
import type { Environment } from '@bundoc/shared/runtime/config';
import { Agent, type RequestInit, fetch as undiciFetch } from 'undici';
import { CommandError } from './errors.ts';

/** How a command finds a running service. */
export interface ServiceOptions {
  readonly url?: string;
  readonly tokenFile?: string;
}

/**
 * A client of the service that `--url` or `BUNDOC_URL` names, with the token of `--token-file`,
 * `BUNDOC_TOKEN_FILE` or `BUNDOC_TOKEN`. A file is read again for each request, so that a token that is
 * replaced while the command runs is used.
 *
 * @throws CommandError
 */
export function serviceClient(environment: Environment, options: ServiceOptions): Bundoc {
  const url = options.url ?? environment['BUNDOC_URL'] ?? 'http://127.0.0.1:8080';
  const file = options.tokenFile ?? environment['BUNDOC_TOKEN_FILE'];
  const token = environment['BUNDOC_TOKEN'];
  if (file === undefined && token === undefined)
    throw new CommandError('a token is needed: --token-file, BUNDOC_TOKEN_FILE or BUNDOC_TOKEN');
  try {
    return new Bundoc({
      url,
      fetch: checkedFetch(),
      token: file === undefined ? (token ?? '') : async () => (await readFile(file, 'utf8')).trim(),
    });
  } catch (error) {
    throw new CommandError(`"${url}" is no URL of a service`, { cause: error });
  }
}

/** A fetch that checks certificates whatever `NODE_TLS_REJECT_UNAUTHORIZED` says: a token goes over it. */
function checkedFetch(): typeof globalThis.fetch {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: true } });
  // The types of the package and those of the platform name the same things twice.
  return ((url: URL, init: RequestInit) =>
    undiciFetch(url, { ...init, dispatcher })) as unknown as typeof globalThis.fetch;
}

/** Aborted by Ctrl-C or SIGTERM, once; the second one ends the process. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => stop.abort(new CommandError('stopped; run it again to continue')));
  return stop.signal;
}
