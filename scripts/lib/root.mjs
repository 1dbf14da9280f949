import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the repository. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Something the person at the terminal can put right: its message is shown alone, without a stack. */
export class UserError extends Error {}

/**
 * Runs a script's body and turns its outcome into an exit code: what it returns, or 1 for an error.
 * @param {string} name
 * @param {() => Promise<number>} body
 */
export async function runScript(name, body) {
  try {
    process.exitCode = await body();
  } catch (error) {
    process.exitCode = 1;
    console.error(`${name}: ${error instanceof UserError ? error.message : error?.stack}`);
  }
}
