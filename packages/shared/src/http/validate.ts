import type { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { WORDS } from '../logs/fault-words.ts';

/** Maximum of faults that one refusal lists. */
const FAULTS_MAX = 20;

/** The part of a request that has a fault; the first word of its path. */
export type RequestPart = 'params' | 'query' | 'body' | 'headers' | `body.${string}`;

/**
 * Validates input at the edge of the service.
 *
 * @throws AppError `invalid_request` with all faults, by path. It names unknown members, and quotes no values.
 */
export function validate<S extends z.ZodType>(schema: S, input: unknown, part: RequestPart): z.infer<S> {
  if (part === 'query') refuseRepeated(input);
  const result = schema.safeParse(input, WORDS);
  if (result.success) return result.data;
  const errors = result.error.issues.slice(0, FAULTS_MAX).map((issue) => ({
    path: [part, ...issue.path.map(String)].join('.'),
    message: issue.message,
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
