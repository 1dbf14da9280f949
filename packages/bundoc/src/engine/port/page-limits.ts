import { z } from 'zod';

const LIMIT_MAX = 1_000;
/** Default number of members of a page. */
export const LIMIT_DEFAULT = 100;
/** Bytes of documents that end a page. */
export const PAGE_BYTES_MAX = 16_777_216;

/** `as_of` of a page. */
export const positionParameterSchema = z
  .string()
  .regex(/^\d{1,16}$/, 'must be the "as_of" of an earlier answer')
  .transform(Number)
  .pipe(z.int().min(0))
  .meta({ type: 'integer', minimum: 0 });

/** `limit` of a page. */
export const limitSchema = z
  .string()
  .regex(/^\d{1,4}$/, `must be a whole number from 1 to ${LIMIT_MAX}`)
  .transform(Number)
  .pipe(z.number().min(1).max(LIMIT_MAX))
  .meta({ type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT });
