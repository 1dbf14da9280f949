import { readFile } from 'node:fs/promises';
import { text as textOf } from 'node:stream/consumers';
import { explainToken, inspectToken, NotAToken } from '@bundoc/shared/cli/explain-token';
import { readKeySet } from '@bundoc/shared/cli/read-key-set';
import { CliFailure, UsageError } from './errors.ts';

export interface InspectOptions {
  readonly jwks?: string;
  readonly json?: true;
}

/**
 * Explains a token in plain words; needs neither store nor KEK. Without keys its signature is not checked.
 *
 * @throws UsageError for a text that is not a token; CliFailure when its signature is checked and invalid.
 */
export async function inspectTokenCommand(given: string, options: InspectOptions): Promise<void> {
  if (given === '-' && process.stdin.isTTY)
    throw new UsageError('give the token on standard input: … inspect < token');
  const text = given === '-' ? await textOf(process.stdin) : given;
  try {
    const keys = options.jwks === undefined ? undefined : readKeySet(await readFile(options.jwks, 'utf8'));
    const inspected = inspectToken(text, keys);
    const { claims, kid, signature } = inspected;
    if (options.json) console.log(JSON.stringify({ ...claims, kid, signature }));
    else for (const line of explainToken(inspected, Date.now())) console.log(line);
    if (signature !== 'good' && signature !== 'not checked')
      throw new CliFailure(`the signature is ${signature}: do not trust the token`);
  } catch (error) {
    throw error instanceof NotAToken ? new UsageError(error.message) : error;
  }
}
