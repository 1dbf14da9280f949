import type { Environment } from '../process/config.ts';
import { readText } from './read-text.ts';

/** The options that select a running Bundoc. */
export interface BundocOptions {
  readonly url?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
}

/** A token, or the reading of the file that has it. A replaced file takes effect when it is read again. */
export type TokenSource = string | (() => Promise<string>);

export const BUNDOC_URL_DEFAULT = 'http://127.0.0.1:8080';

/** What the options say of a running Bundoc, else the environment. */
export function bundocAccess(environment: Environment, options: BundocOptions) {
  const set = (name: string) => environment[name] || undefined;
  const file = options.tokenFile ?? set('BUNDOC_TOKEN_FILE');
  const token: TokenSource | undefined =
    file === undefined ? set('BUNDOC_TOKEN') : async () => (await readText(file)).trim();
  return { url: options.url ?? set('BUNDOC_URL'), token, caFile: options.caFile ?? set('BUNDOC_CA_FILE') };
}

export async function tokenText(token: TokenSource): Promise<string> {
  return typeof token === 'string' ? token : await token();
}
