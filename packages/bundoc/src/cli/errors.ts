import { AppError } from '@bundoc/shared/errors';

/** The command cannot run as things are. */
export class CannotRun extends Error {
  override readonly name = 'CannotRun';
}

/** The project was looked at and is not repaired: exit code 1. Everything else that is thrown is 2. */
export class NotRepaired extends Error {
  override readonly name = 'NotRepaired';
}

/** One line for a person; no stack. */
export function lineOf(error: unknown): string {
  return reasonsOf(error).join(': ').replace(/\s+/g, ' ');
}

function reasonsOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  // The cause is what tells an operator what to do; a problem's code alone does not.
  const cause = error instanceof AppError && error.cause !== undefined ? reasonsOf(error.cause) : [];
  return [error.message, ...cause];
}

export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof NotRepaired ? 1 : 2;
}
