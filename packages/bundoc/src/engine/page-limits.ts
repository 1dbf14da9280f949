import { z } from 'zod';

const LIMIT_MAX = 1_000;
/** Members of a page when nothing is said. */
export const LIMIT_DEFAULT = 100;
/** Bytes of documents after which a page ends. */
export const PAGE_BYTES_MAX = 16_777_216;

/** `limit` of a page. */
export const limitSchema = z
  .string()
  .regex(/^\d{1,4}$/, `must be a whole number from 1 to ${LIMIT_MAX}`)
  .transform(Number)
  .pipe(z.number().min(1).max(LIMIT_MAX))
  .meta({ type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT });
