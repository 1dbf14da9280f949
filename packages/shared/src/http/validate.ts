import type { z } from 'zod';
import { AppError } from '../errors.ts';

/** The part of a request that a fault lies in; the first word of its path. */
export type RequestPart = 'params' | 'query' | 'body' | 'headers' | `body.${string}`;

/**
 * Validates input at the edge.
 *
 * @throws AppError `invalid_request` with every fault, by path; the values are not repeated.
 */
export function validate<S extends z.ZodType>(schema: S, input: unknown, part: RequestPart): z.infer<S> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const errors = result.error.issues.slice(0, 20).map((issue) => ({
    path: [part, ...issue.path.map(String)].join('.'),
    message: issue.code === 'unrecognized_keys' ? 'has members that are not known here' : issue.message,
  }));
  throw new AppError('invalid_request', { errors });
}
