import type { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { WORDS } from '../logs/fault-words.ts';

/** Maximum of faults that one refusal lists. */
const FAULTS_MAX = 20;
/** Maximum characters of the path of a fault. */
const PATH_CHARS_MAX = 1_024;

/** The part of a request that has a fault; the first word of its path. */
export type RequestPart = 'params' | 'query' | 'body' | 'headers' | `body.${string}`;

/**
 * Validates input at the edge of the service.
 *
 * @throws AppError `not_found` for an empty name in a path; `invalid_request` with all faults, by path. It
 *   names unknown members, and quotes no values.
 */
export function validate<S extends z.ZodType>(schema: S, input: unknown, part: RequestPart): z.infer<S> {
  if (part === 'query') refuseRepeated(input);
  if (part === 'params') requireNames(input);
  const result = schema.safeParse(input, WORDS);
  if (result.success) return result.data;
  const errors = withoutConsequences(result.error.issues)
    .slice(0, FAULTS_MAX)
    .map((issue) => ({ path: faultPath(part, issue.path), message: issue.message }));
  throw new AppError('invalid_request', { errors });
}

/** Leaves out what Zod says of a value beside its wrong type: a text is no list with too many elements. */
function withoutConsequences(issues: readonly z.core.$ZodIssue[]): readonly z.core.$ZodIssue[] {
  const mistyped = issues.filter(({ code }) => code === 'invalid_type');
  const keyOf = ({ path }: z.core.$ZodIssue) => JSON.stringify(path);
  const paths = new Set(mistyped.map(keyOf));
  return issues.filter((issue) => issue.code === 'invalid_type' || !paths.has(keyOf(issue)));
}

/** The place of a fault, cut: its names may be a client's. */
export function faultPath(part: RequestPart, path: readonly PropertyKey[]): string {
  const whole = [part, ...path.map(String)].join('.');
  return whole.length > PATH_CHARS_MAX ? `${whole.slice(0, PATH_CHARS_MAX)}…` : whole;
}

/**
 * Refuses a path that ends or continues where a name belongs: `/v1/projects/` names no project.
 *
 * @throws AppError `not_found`.
 */
export function requireNames(params: unknown): void {
  if (Object.entries(params ?? {}).some(([name, value]) => name !== '*' && value === ''))
    throw new AppError('not_found', {
      detail: 'a name is missing in the path: give it, or leave the "/" out',
    });
}

/** Refuses repeated query parameters, which arrive as an array. No parameter takes a list. */
function refuseRepeated(query: unknown): void {
  const errors = Object.entries(query ?? {}).flatMap(([name, value]) =>
    Array.isArray(value) ? [{ path: `query.${name}`, message: 'is given twice' }] : [],
  );
  if (errors.length > 0) throw new AppError('invalid_request', { errors: errors.slice(0, FAULTS_MAX) });
}
