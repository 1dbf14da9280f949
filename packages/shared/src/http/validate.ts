import type { core, z } from 'zod';
import { AppError } from '../contract/app-error.ts';

/** Maximum of faults that one refusal lists. */
const FAULTS_MAX = 20;

/** The part of a request that has a fault; the first word of its path. */
export type RequestPart = 'params' | 'query' | 'body' | 'headers' | `body.${string}`;

/**
 * Validates input at the edge of the service.
 *
 * @throws AppError `invalid_request` with all faults, by path. It quotes no values.
 */
export function validate<S extends z.ZodType>(schema: S, input: unknown, part: RequestPart): z.infer<S> {
  if (part === 'query') refuseRepeated(input);
  const result = schema.safeParse(input, WORDS);
  if (result.success) return result.data;
  const errors = result.error.issues.slice(0, FAULTS_MAX).map((issue) => ({
    path: [part, ...issue.path.map(String)].join('.'),
    message: issue.code === 'unrecognized_keys' ? 'has unknown members' : issue.message,
  }));
  throw new AppError('invalid_request', { errors });
}

/** Refuses repeated query parameters, which arrive as an array. No parameter takes a list. */
function refuseRepeated(query: unknown): void {
  const errors = Object.entries(query ?? {}).flatMap(([name, value]) =>
    Array.isArray(value) ? [{ path: `query.${name}`, message: 'is given twice' }] : [],
  );
  if (errors.length > 0) throw new AppError('invalid_request', { errors: errors.slice(0, FAULTS_MAX) });
}

/** Messages for faults without a message in the schema. */
export const WORDS: core.ParseContext<core.$ZodIssue> = { error: (issue) => wordsOf(issue) };

const KINDS: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
};

/** @returns undefined to keep Zod's own message. */
function wordsOf(issue: core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type': {
      if (issue.input === undefined) return 'is required';
      const kind = KINDS[issue.expected];
      return kind && `must be ${kind}`;
    }
    case 'too_small':
      return boundOf(issue.origin, 'least', issue.minimum, issue.inclusive);
    case 'too_big':
      return boundOf(issue.origin, 'most', issue.maximum, issue.inclusive);
    case 'invalid_value':
      return `must be ${oneOf(issue.values)}`;
    case 'invalid_union':
      return Array.isArray(issue['options']) ? `must be ${oneOf(issue['options'])}` : undefined;
    default:
      return undefined;
  }
}

function boundOf(
  origin: string,
  side: 'least' | 'most',
  bound: number | bigint,
  isInclusive = true,
): string | undefined {
  if (!isInclusive) return undefined;
  const one = bound === 1 ? '' : 's';
  if (origin === 'number' || origin === 'int') return `must be at ${side} ${bound}`;
  if (origin === 'string') return `must have at ${side} ${bound} character${one}`;
  if (origin === 'array') return `must have at ${side} ${bound} element${one}`;
  return undefined;
}

function oneOf(values: readonly unknown[]): string {
  const texts = values.map((value) => JSON.stringify(value));
  return texts.length === 1 ? String(texts[0]) : `one of ${texts.join(', ')}`;
}
