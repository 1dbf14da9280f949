import type { JsonSchema } from '../contract/json-schema.ts';
import { PROBLEMS, type ProblemCode } from '../contract/problem.ts';

/**
 * The forms of the headers that answers have beside those of HTTP itself. The table is closed: only a header
 * with a form can be documented, and tests find each of these in an answer that does not document it.
 */
export const HEADER_FORMS = {
  ETag: { type: 'string', pattern: '^"[!#-~]+"$' },
  Location: { type: 'string', format: 'uri-reference', pattern: '^/v1/' },
  'Retry-After': { type: 'integer', minimum: 1 },
  'WWW-Authenticate': { type: 'string', pattern: '^Bearer(?: error="[a-z_]+")?$' },
  'Content-Disposition': { type: 'string', pattern: '^attachment; filename="[^"]+"$' },
  'bunkms-receipt': { type: 'string', pattern: '^[!-~]+$' },
} as const satisfies Record<string, JsonSchema>;

/** A header of an answer: what it says. It is always there, unless it is `optional`. */
export type AnswerHeader = string | { readonly description: string; readonly optional: true };
export type AnswerHeaders = { readonly [Name in keyof typeof HEADER_FORMS]?: AnswerHeader };

export const RETRY_AFTER = 'Seconds after which the client may retry';
const CHALLENGE = '`Bearer`, with the error';

/** The headers of a refusal with one of these codes, which have the same status. */
export function refusalHeaders(codes: readonly ProblemCode[]): AnswerHeaders | undefined {
  const [first] = codes;
  if (first === undefined) return undefined;
  const { status } = PROBLEMS[first];
  if (status === 429 || status === 503) return { 'Retry-After': RETRY_AFTER };
  if (status === 401) return { 'WWW-Authenticate': CHALLENGE };
  if (codes.includes('forbidden'))
    return {
      'WWW-Authenticate': codes.length === 1 ? CHALLENGE : { description: CHALLENGE, optional: true },
    };
  if (codes.includes('storage_superseded'))
    return { 'Retry-After': { description: RETRY_AFTER, optional: true } };
  return undefined;
}

/** The headers of a response in the document. */
export function headersOf(headers: AnswerHeaders | undefined): object | undefined {
  if (headers === undefined) return undefined;
  return Object.fromEntries(
    Object.entries(headers).map(([name, header]) => [
      name,
      {
        description: typeof header === 'string' ? header : header.description,
        ...(typeof header === 'string' ? { required: true } : {}),
        schema: HEADER_FORMS[name as keyof AnswerHeaders],
      },
    ]),
  );
}
