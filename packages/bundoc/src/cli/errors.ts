import { BundocError } from '@bundoc/client/error';

/** The command cannot run as things are. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** The project was looked at and is not repaired: exit code 1. Everything else that is thrown is 2. */
export class NotRepaired extends Error {
  override readonly name = 'NotRepaired';
}

/**
 * What to do about an error of the service, where there is something; the first that one of its causes gives.
 */
export function remedyOf(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const remedy = cause instanceof BundocError ? REMEDIES[cause.code] : undefined;
    if (remedy !== undefined) return remedy;
  }
  return undefined;
}

const REMEDIES: Readonly<Record<string, string>> = {
  unauthenticated: '"bundoc token" says what the token is and until when; "bundoc login" keeps a new one',
  forbidden: '"bundoc token" says what the token may do',
  network_error: '"bundoc doctor" looks for the cause',
  deadline_exceeded: '"bundoc doctor" looks for the cause',
  unexpected_answer: 'is this the URL of Bundoc? "bundoc doctor" looks for the cause',
};

export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof NotRepaired ? 1 : 2;
}
