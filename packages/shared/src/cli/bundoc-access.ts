import type { Environment } from '../process/config.ts';
import { ownUrl } from './ask-service.ts';
import { CommandError } from './errors.ts';
import { readText } from './read-text.ts';

/** The options that select a running Bundoc. */
export interface BundocOptions {
  readonly url?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
}

const TWO_TOKENS = 'BUNDOC_TOKEN and BUNDOC_TOKEN_FILE are both set: unset one of them, or give --token-file';

/** The source of a URL that nothing names. */
export const BY_DEFAULT = 'the default: set BUNDOC_URL or --url';

/** A token, or the reading of the file that has it. A replaced file takes effect when it is read again. */
export type TokenSource = string | (() => Promise<string>);

/**
 * Where Bundoc listens by its own variables. Commands ask there when nothing names a URL.
 *
 * @throws CommandError for a port that is none.
 */
export function ownBundocUrl(environment: Environment): string {
  const { BUNDOC_HOST, BUNDOC_PORT, BUNDOC_TLS_CERT_FILE } = environment;
  const port = Number(BUNDOC_PORT || 8_080);
  if (!(Number.isInteger(port) && port > 0 && port < 65_536))
    throw new CommandError(`BUNDOC_PORT is "${BUNDOC_PORT}": give a port from 1 to 65535`);
  return ownUrl({
    host: BUNDOC_HOST || '127.0.0.1',
    port,
    tls: BUNDOC_TLS_CERT_FILE || undefined,
  });
}

/**
 * What the options say of a running Bundoc, else the environment. `source` is where its URL is from. Reading
 * the token fails when the environment names two.
 */
export function bundocAccess(environment: Environment, options: BundocOptions) {
  const set = (name: string) => environment[name] || undefined;
  const file = options.tokenFile ?? set('BUNDOC_TOKEN_FILE');
  const ownToken = set('BUNDOC_TOKEN')?.trim() || undefined;
  const isAmbiguous = options.tokenFile === undefined && ownToken !== undefined;
  const token: TokenSource | undefined =
    file === undefined
      ? ownToken
      : async () => {
          if (isAmbiguous) throw new CommandError(TWO_TOKENS);
          const text = (await readText(file)).trim();
          if (!/^\S+$/.test(text))
            throw new CommandError(`${file} has no token in it: a token is one word, without "Bearer"`);
          return text;
        };
  const url = options.url ?? set('BUNDOC_URL');
  const isDefault = set('BUNDOC_HOST') === undefined && set('BUNDOC_PORT') === undefined;
  const own = isDefault ? BY_DEFAULT : 'BUNDOC_HOST and BUNDOC_PORT';
  const source = options.url ? '--url' : url === undefined ? own : 'BUNDOC_URL';
  return { url, source, token, caFile: options.caFile ?? set('BUNDOC_CA_FILE') };
}

export async function tokenText(token: TokenSource): Promise<string> {
  return typeof token === 'string' ? token : await token();
}
