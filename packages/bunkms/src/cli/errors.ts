import { ConfigError } from '@bundoc/shared/config';
import { AppError } from '@bundoc/shared/errors';

/** The command was not understood: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command was understood and did not succeed, or found something that it was to look for: exit code 1. */
export class CliFailure extends Error {
  override readonly name = 'CliFailure';
}

/** One line for a person; no stack. */
export function lineOf(error: unknown): string {
  return reasonsOf(error).join(': ').replace(/\s+/g, ' ');
}

function reasonsOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  // The cause is what tells an operator what to do ("database is locked"); a problem's code alone does not.
  const cause = error instanceof AppError && error.cause !== undefined ? reasonsOf(error.cause) : [];
  return [error.message, ...cause];
}

export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof UsageError || error instanceof ConfigError ? 2 : 1;
}
