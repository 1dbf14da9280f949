/** A command that cannot run, or has found a fault. An empty message is not printed. */
export class CommandError extends Error {
  override readonly name: string = 'CommandError';
  /** 1 for a fault that was found, 2 for a command that cannot run. */
  readonly exitCode: number;

  constructor(
    message: string,
    { exitCode = 2, ...options }: ErrorOptions & { readonly exitCode?: number } = {},
  ) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** Ends a command whose output has named a fault. */
export function faultFound(): CommandError {
  return new CommandError('', { exitCode: 1 });
}
