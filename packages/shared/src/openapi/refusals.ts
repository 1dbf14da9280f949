import { AppError } from '../contract/app-error.ts';
import { defined } from '../contract/defined.ts';
import { type JsonSchema, named } from '../contract/json-schema.ts';
import { PROBLEMS, type Problem, type ProblemCode } from '../contract/problem.ts';
import { problemOf } from '../contract/problem-reply.ts';
import { headersOf, refusalHeaders } from './answer-headers.ts';
import type { RouteDescription } from './description.ts';

/** Refusals of a service that every route can return. */
export interface ServiceRefusals {
  /** Of every route that needs more than the process itself, such as storage. */
  readonly always: readonly ProblemCode[];
  /** Of every route that checks a token. */
  readonly authenticated: readonly ProblemCode[];
}

/** Every code that a route may refuse with. */
export function refusalsOf(
  method: string,
  { access, params, body, refusals = [] }: RouteDescription,
  service: ServiceRefusals,
): ReadonlySet<ProblemCode> {
  const codes = new Set<ProblemCode>([
    'invalid_request',
    'request_timeout',
    'unsupported_media_type',
    'headers_too_large',
    'internal_error',
    'overloaded',
    ...service.always,
    ...refusals,
  ]);
  if (params !== undefined) codes.add('uri_too_long').add('not_found');
  if (method !== 'GET' && method !== 'HEAD') codes.add('payload_too_large');
  if (body !== undefined) codes.add('invalid_json');
  if (access.kind === 'token') {
    codes.add('unauthenticated');
    if (access.scopes !== undefined || access.anyScope !== undefined || access.serviceOnly === true)
      codes.add('forbidden');
    for (const code of service.authenticated) codes.add(code);
  }
  return codes;
}

function byStatusOf(codes: ReadonlySet<ProblemCode>): ReadonlyMap<number, readonly ProblemCode[]> {
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of codes) {
    const { status } = PROBLEMS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return byStatus;
}

/** Codes that are the only one of their status in some operation. Their responses get a name. */
export function sharedCodes(refusals: readonly ReadonlySet<ProblemCode>[]): ReadonlySet<ProblemCode> {
  return new Set(
    refusals.flatMap((codes) => [...byStatusOf(codes).values()].filter((of) => of.length === 1).flat()),
  );
}

/** A response of the document. */
export interface Response {
  readonly description: string;
  readonly headers?: object;
  readonly content?: object;
}

/**
 * The responses of an operation, by status: its own answers, and refusals with these codes. A status with a
 * single code references a shared response. A status with both, such as the 503 of `/ready`, has the content
 * types of both.
 */
export function responsesOf(
  answers: Readonly<Record<string, Response>>,
  codes: ReadonlySet<ProblemCode>,
): Record<string, object> {
  const refusals = [...byStatusOf(codes)].map(([status, of]) => {
    const own = answers[status];
    if (own !== undefined) return [status, joined(own, refusal(of))] as const;
    return [status, of.length === 1 ? { $ref: `#/components/responses/${of[0]}` } : refusal(of)] as const;
  });
  return { ...answers, ...Object.fromEntries(refusals) };
}

function joined(own: Response, refused: Response): Response {
  return {
    description: `${own.description}. ${refused.description}`,
    headers: { ...own.headers, ...refused.headers },
    content: { ...own.content, ...refused.content },
  };
}

/** The name of a problem's schema: `DocumentNotFoundProblem`. */
export function problemName(code: ProblemCode): string {
  const words = code.toLowerCase().split('_');
  return `${words.map((word) => `${word.slice(0, 1).toUpperCase()}${word.slice(1)}`).join('')}Problem`;
}

function refer(code: ProblemCode): JsonSchema {
  return named(problemName(code));
}

/** The schema of a problem document with this code. */
export function problemSchemaOf(code: ProblemCode): JsonSchema {
  const { status, title } = PROBLEMS[code];
  return {
    description: title,
    allOf: [
      named('Problem'),
      {
        type: 'object',
        required: ['code', 'status'],
        properties: { code: { type: 'string', const: code }, status: { type: 'integer', const: status } },
      },
    ],
  };
}

/** A response with one or several codes of the same status. */
export function refusal(codes: readonly ProblemCode[]): Response {
  const [first] = codes;
  if (first === undefined) throw new Error('a refusal has a code');
  const headers = headersOf(refusalHeaders(codes));
  return {
    description: codes.map((code) => `\`${code}\`: ${PROBLEMS[code].title}`).join('. '),
    ...defined({ headers }),
    content: {
      'application/problem+json': {
        schema: codes.length === 1 ? refer(first) : { oneOf: codes.map(refer) },
        examples: Object.fromEntries(codes.map((code) => [code, { value: exampleOf(code) }])),
      },
    },
  };
}

function exampleOf(code: ProblemCode): Problem {
  return problemOf(new AppError(code), '5f0c1d2e3a4b-1c');
}
