import { z } from 'zod';

/** Entity tags of one header, at most. */
export const ENTITY_TAGS_MAX = 32;

/** `If-Match` and `If-None-Match` (RFC 9110, section 13.1): `*`, or at most {@link ENTITY_TAGS_MAX} entity tags. */
export const entityTagsSchema = z
  .string()
  .regex(/^(?:\*|(?:W\/)?"[\x21\x23-\x7e]*"(?:\s*,\s*(?:W\/)?"[\x21\x23-\x7e]*"){0,31})$/)
  .describe('`*`, or entity tags in double quotes');

/** `Idempotency-Key`: it stands for one request of one subject, for a day. */
export const idempotencyKeySchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters without spaces')
  .describe('For a day, the same request gets the same answer, and another one under the key is refused');
