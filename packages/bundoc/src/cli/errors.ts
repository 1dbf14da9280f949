/** The command cannot run as things are. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** The project was looked at and is not repaired: exit code 1. Everything else that is thrown is 2. */
export class NotRepaired extends Error {
  override readonly name = 'NotRepaired';
}

export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof NotRepaired ? 1 : 2;
}
