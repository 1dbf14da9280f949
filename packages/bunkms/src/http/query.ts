import { z } from 'zod';

const LIMIT_MAX = 500;
const LIMIT_DEFAULT = 100;

/** For routes without query parameters: an unknown parameter must not be mistaken for a filter. */
export const noQuery = z.strictObject({});

const limitFault = `must be a whole number from 1 to ${LIMIT_MAX}`;
const limit = z
  .string()
  .regex(/^\d{1,4}$/, limitFault)
  .transform(Number)
  .pipe(z.number().min(1, limitFault).max(LIMIT_MAX, limitFault))
  .default(LIMIT_DEFAULT)
  .meta({ type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT });

/** The cursor of lists of audit records: a place in the chain. */
export const seqCursor = z
  .string()
  .regex(/^\d{1,15}$/, 'must be the cursor of an earlier page')
  .transform(Number);

/** The query parameters of a paged list. The cursor is opaque to callers and checked by `cursor`. */
export function pageQuery<C extends z.ZodType>(cursor: C) {
  return { limit, cursor: cursor.optional() };
}
