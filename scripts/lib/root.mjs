import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the repository. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** An error that the user can fix. Its message is shown without a stack. */
export class UserError extends Error {}

/**
 * Runs the body of a script and sets the exit code: its result, or 1 for an error.
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
