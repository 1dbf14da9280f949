import type { BundocCode } from './codes.ts';

/** One fault of an invalid request: where it is (`body.name`, `query.limit`) and what is wrong with it. */
export interface FieldFault {
  readonly path: string;
  readonly message: string;
  /**
   * For a failed precondition: the current entity tag of the document or definition, for `ifMatch`; absent
   * when it does not exist.
   */
  readonly etag?: string;
}

/** Failures without a readable answer. */
export type ClientCode =
  /**
   * No answer: the connection was refused or cut, or the host name was not resolved. A write may have taken
   * effect. The same call with the same key does it once.
   */
  | 'network_error'
  /** The deadline of the call has passed. A write may have taken effect, as above. */
  | 'deadline_exceeded'
  /** An answer that is not from Bundoc: from a proxy, for example. */
  | 'unexpected_answer'
  /**
   * In a browser: the service answers, but does not let this origin read the answer (`BUNDOC_CORS_ORIGINS`).
   * The client does not retry.
   */
  | 'cors_refused';

/** A code of an error. The last part allows codes of a Bundoc that is newer than this client. */
export type ErrorCode = BundocCode | ClientCode | (string & {});

/**
 * A refusal of Bundoc (`docs/errors.md` lists all codes), or the failure to get an answer.
 *
 * @example
 * ```ts
 * import { BundocError } from '@bundoc/client';
 *
 * try {
 *   await notes.create({ title: 'Hello' });
 * } catch (error) {
 *   if (!(error instanceof BundocError)) throw error;
 *   console.error(error.code, error.status, error.detail, error.requestId);
 * }
 * ```
 */
export class BundocError extends Error {
  override readonly name = 'BundocError';
  /** Identifies the kind of error: `precondition_failed`, `document_exists`, … or a {@link ClientCode}. */
  readonly code: ErrorCode;
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  readonly detail: string | undefined;
  /** The faults of an invalid request; empty for any other. */
  readonly errors: readonly FieldFault[];
  /** The id of the request in the server's log. */
  readonly requestId: string | undefined;
  /** The `Retry-After` of the answer, milliseconds. */
  readonly retryAfterMs: number | undefined;
  /**
   * When one precondition has failed: the current revision of the document or definition, for `ifMatch`;
   * undefined when it does not exist. When several of a batch have failed, {@link errors} has the `etag` of
   * each.
   */
  readonly currentRev: string | undefined;
  /** The whole problem document, for members that are not named here. */
  readonly problem: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    options: {
      readonly status?: number;
      readonly title?: string | undefined;
      readonly detail?: string | undefined;
      readonly errors?: readonly FieldFault[] | undefined;
      readonly requestId?: string | undefined;
      readonly retryAfterMs?: number | undefined;
      readonly problem?: Readonly<Record<string, unknown>>;
      readonly cause?: unknown;
    } = {},
  ) {
    const faults = (options.errors ?? []).map(({ path, message }) => `${path} ${message}`).join('; ');
    const text = [options.title, options.detail, faults].filter((part) => part !== undefined && part !== '');
    super(text.length === 0 ? code : `${code}: ${text.join(': ')}`, { cause: options.cause });
    this.code = code;
    this.status = options.status ?? 0;
    this.detail = options.detail;
    this.errors = options.errors ?? [];
    this.currentRev = this.errors.length === 1 ? this.errors[0]?.etag?.replaceAll('"', '') : undefined;
    this.requestId = options.requestId;
    this.retryAfterMs = options.retryAfterMs;
    this.problem = options.problem ?? {};
  }
}

/**
 * True when `error` is a {@link BundocError} with one of the codes.
 *
 * @example
 * ```ts
 * import { hasCode } from '@bundoc/client';
 *
 * await notes.delete('first').catch((error: unknown) => {
 *   if (!hasCode(error, 'document_not_found')) throw error;
 * });
 * ```
 */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is BundocError {
  return error instanceof BundocError && codes.includes(error.code);
}

/** The error of an answer. @param details by code, for an answer without its own. */
export function errorOf(
  status: number,
  headers: Headers,
  text: string,
  details: Readonly<Record<string, string | undefined>> = {},
): BundocError {
  const retryAfterMs = retryAfterOf(headers.get('retry-after'));
  const problem = objectOf(text);
  const { code, title, detail, request_id: requestId, errors } = problem;
  if (typeof code !== 'string')
    return new BundocError('unexpected_answer', {
      status,
      retryAfterMs,
      detail: `the answer has status ${status}`,
    });
  return new BundocError(code, {
    status,
    title: stringOf(title),
    detail: stringOf(detail) ?? details[code],
    requestId: stringOf(requestId),
    errors: Array.isArray(errors) ? (errors as FieldFault[]) : [],
    retryAfterMs,
    problem,
  });
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function objectOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** `Retry-After` as milliseconds: seconds, or a date (RFC 9110, section 10.2.3). */
function retryAfterOf(value: string | null): number | undefined {
  if (value === null) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1_000;
  const ms = Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
