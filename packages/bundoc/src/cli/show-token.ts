import { explainToken, inspectToken, NotAToken } from '@bundoc/shared/cli/explain-token';
import { readKeySet } from '@bundoc/shared/cli/read-key-set';
import type { Environment } from '@bundoc/shared/runtime/config';
import { CommandError } from './errors.ts';
import { readText } from './read-text.ts';
import { type ServiceOptions, serviceAccess } from './service-client.ts';

/**
 * Explains a token without any request: the one on standard input for `-`, else the one that commands use.
 *
 * @returns false when its signature was checked and is invalid.
 */
export async function tokenCommand(
  environment: Environment,
  given: string | undefined,
  options: ServiceOptions & { readonly jwks?: string; readonly json?: true },
): Promise<boolean> {
  const text =
    given === undefined ? await usedToken(environment, options) : given === '-' ? await readText('-') : given;
  try {
    const keys = options.jwks === undefined ? undefined : readKeySet(await readText(options.jwks));
    const inspected = inspectToken(text, keys);
    const { claims, kid, signature } = inspected;
    if (options.json) console.log(JSON.stringify({ ...claims, kid, signature }));
    else for (const line of explainToken(inspected, Date.now())) console.log(line);
    return signature === 'good' || signature === 'not checked';
  } catch (error) {
    throw error instanceof NotAToken ? new CommandError(error.message) : error;
  }
}

async function usedToken(environment: Environment, options: ServiceOptions): Promise<string> {
  const { token } = await serviceAccess(environment, options);
  return typeof token === 'string' ? token : await token();
}
