import { AppError } from '../contract/app-error.ts';
import { PROBLEMS } from '../contract/problem.ts';

/** An error as one line for a person; no stack. */
export function formatError(error: unknown): string {
  return reasonsOf(error).join(': ').replace(/\s+/g, ' ');
}

function reasonsOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  if (!(error instanceof AppError)) return [error.message];
  // A code alone does not tell the user what to do: its detail and its cause may.
  const { code, detail, cause } = error;
  return [code, detail ?? PROBLEMS[code].title, ...(cause === undefined ? [] : reasonsOf(cause))];
}
