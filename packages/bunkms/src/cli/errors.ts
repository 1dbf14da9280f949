import { ConfigError } from '@bundoc/shared/config';

/** The command was not understood: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command was understood and did not succeed, or found something that it was to look for: exit code 1. */
export class CliFailure extends Error {
  override readonly name = 'CliFailure';
}

export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof UsageError || error instanceof ConfigError ? 2 : 1;
}
