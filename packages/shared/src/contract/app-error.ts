import type { FieldFault, ProblemCode } from './problem.ts';

export interface AppErrorOptions extends ErrorOptions {
  /**
   * A sentence for the caller. It must not contain secrets, paths of the server or texts of internal errors.
   */
  readonly detail?: string | undefined;
  /** Seconds after which the caller may retry; becomes `Retry-After`. */
  readonly retryAfterS?: number;
  /** The faults of an invalid input, one by one. */
  readonly errors?: readonly FieldFault[] | undefined;
  /** Methods that the path does support; becomes `Allow` (405 only). */
  readonly allow?: readonly string[];
  /** The storage that holds the requested key or project. */
  readonly storage?: string | undefined;
  /** The outside key that denies its use, or does not answer. */
  readonly outsideKey?: string | undefined;
  /** When the refusal ends, ISO 8601. */
  readonly until?: string | undefined;
  /** Why the token is refused (401 only). For the log only, never for the answer. */
  readonly tokenFault?: TokenFault;
}

/** Why a token is refused. */
export type TokenFault =
  | 'absent'
  | 'malformed'
  | 'unknown signing key'
  | 'signing key withdrawn'
  | 'algorithm not allowed'
  | 'bad signature'
  | 'wrong issuer'
  | 'wrong audience'
  | 'claims missing or invalid'
  | 'expired'
  | 'not valid yet'
  | 'revoked'
  | 'revoked or unknown';

/** Refusals of what a client may send in floods. Others are the answers of allowed requests. */
export const CODES_OF_FLOODS: ReadonlySet<ProblemCode> = new Set([
  ...(['unauthenticated', 'forbidden', 'not_found', 'method_not_allowed'] as const),
  ...(['rate_limited', 'overloaded'] as const),
]);

/**
 * The only error type that crosses module borders. Services know codes; `contract/problem-reply.ts` maps a
 * code to a status. Anything else that is thrown is a defect and becomes 500 `internal_error`.
 */
export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: ProblemCode;
  readonly detail: string | undefined;
  readonly retryAfterS: number | undefined;
  readonly errors: readonly FieldFault[] | undefined;
  readonly allow: readonly string[] | undefined;
  readonly storage: string | undefined;
  readonly outsideKey: string | undefined;
  readonly until: string | undefined;
  readonly tokenFault: TokenFault | undefined;

  constructor(code: ProblemCode, options: AppErrorOptions = {}) {
    const { stackTraceLimit } = Error;
    // Their stacks are never read, and would double the time of a refusal.
    if (CODES_OF_FLOODS.has(code)) Error.stackTraceLimit = 0;
    super(options.detail === undefined ? code : `${code}: ${options.detail}`, { cause: options.cause });
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
    this.detail = options.detail;
    this.retryAfterS = options.retryAfterS;
    this.errors = options.errors;
    this.allow = options.allow;
    this.storage = options.storage;
    this.outsideKey = options.outsideKey;
    this.until = options.until;
    this.tokenFault = options.tokenFault;
  }
}

/** True when `error` is an AppError with one of `codes`. */
export function hasCode(error: unknown, ...codes: readonly ProblemCode[]): error is AppError {
  return error instanceof AppError && codes.includes(error.code);
}
