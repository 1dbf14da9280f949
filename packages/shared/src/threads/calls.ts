import { AppError } from '../contract/app-error.ts';
import { defined } from '../contract/defined.ts';
import type { ProblemCode } from '../contract/problem.ts';

// The messages between `thread.ts` and `serve-calls.ts`: calls and answers, each as an array.

export interface Call {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
  /**
   * Deadline by `process.hrtime`, which all threads of a process share. A call that has not begun by then
   * never begins.
   */
  readonly expiresAtNs: bigint | undefined;
}

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: SentError };

/** In place of calls: the thread finishes the calls before it, and ends. */
export const CLOSE = 'close';

/** An error as a message can carry it: an AppError whole, any other error with its own fields. */
export interface SentError {
  readonly name?: string;
  readonly code?: string;
  readonly message: string;
  /** The message of its cause. */
  readonly reason: string | undefined;
}

export function sentError(error: unknown): SentError {
  if (!(error instanceof Error)) return { message: String(error), reason: undefined };
  const reason = error.cause instanceof Error ? error.cause.message : undefined;
  const { message, stack } = error;
  return { ...error, message, reason, ...(error instanceof AppError ? {} : { stack }) };
}

/** The error that {@link sentError} was made of. */
export function receivedError({ message, reason, ...fields }: SentError): Error {
  const cause = reason === undefined ? {} : { cause: new Error(reason) };
  if (fields.name === 'AppError')
    return new AppError(fields.code as ProblemCode, { ...defined(fields), ...cause });
  return Object.assign(new Error(message, cause), fields);
}
