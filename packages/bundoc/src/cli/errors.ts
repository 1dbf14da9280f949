import { BundocError } from '@bundoc/client/error';

/** A command that cannot run; the message says why. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** The project was checked and is not repaired: exit code 1. Every other error exits with 2. */
export class NotRepaired extends Error {
  override readonly name = 'NotRepaired';
}

/** The remedy for an error of the service: that of the error or its nearest cause that has one. */
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
