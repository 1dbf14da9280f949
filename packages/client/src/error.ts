import type { BundocCode } from './codes.ts';

/** One fault of an invalid request: where it is (`body.name`, `query.limit`) and what is wrong with it. */
export interface FieldFault {
  readonly path: string;
  readonly message: string;
  /**
   * Of a precondition that failed in a batch: the entity tag of the document as it is; absent when there is
   * none.
   */
  readonly etag?: string;
}

/** What went wrong before there was an answer that could be read. */
export type ClientCode =
  /**
   * No answer: refused, cut off, not resolved. The write may have happened; the same call again, with its
   * key, does it once.
   */
  | 'network_error'
  /** The deadline of the call is over. As above. */
  | 'deadline_exceeded'
  /** An answer that is none of Bundoc's: a proxy's, perhaps. */
  | 'unexpected_answer'
  /**
   * In a browser: the service answers, and lets no page of this origin read it (`BUNDOC_CORS_ORIGINS`). The
   * client does not try again.
   */
  | 'cors_refused';

/** A code of an error. The last part is for those of a Bundoc that is newer than this client. */
export type ErrorCode = BundocCode | ClientCode | (string & {});

/** A refusal of Bundoc (`docs/errors.md` has all codes), or what kept its answer away. */
export class BundocError extends Error {
  override readonly name = 'BundocError';
  /** What to tell errors apart by: `precondition_failed`, `document_exists`, … or a {@link ClientCode}. */
  readonly code: ErrorCode;
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  readonly detail: string | undefined;
  /** The faults of an invalid request; empty for any other. */
  readonly errors: readonly FieldFault[];
  /** What the server's log knows the request by. */
  readonly requestId: string | undefined;
  /** When the server says that trying again makes sense, milliseconds from the answer. */
  readonly retryAfterMs: number | undefined;
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
    this.requestId = options.requestId;
    this.retryAfterMs = options.retryAfterMs;
    this.problem = options.problem ?? {};
  }
}

/** True when `error` is a {@link BundocError} with one of the codes. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is BundocError {
  return error instanceof BundocError && codes.includes(error.code);
}

/** The error that an answer tells of. */
export function errorOf(status: number, headers: Headers, text: string): BundocError {
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
    detail: stringOf(detail),
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
