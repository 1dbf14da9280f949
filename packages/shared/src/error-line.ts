import { AppError } from './errors.ts';

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
