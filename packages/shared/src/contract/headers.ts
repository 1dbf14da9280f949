import { z } from 'zod';

/** Entity tags of one header, at most. */
export const ENTITY_TAGS_MAX = 32;

/** Linear in the length of a value: no run of spaces or commas can match in two ways. */
const LIST_OF_TAGS =
  /^(?:[ \t]*\*[ \t]*|[ \t,]*(?:W\/)?"[\x21\x23-\x7e]*"(?:[ \t]*,[ \t,]*(?:W\/)?"[\x21\x23-\x7e]*"){0,31}[ \t,]*)$/;

/**
 * `If-Match` and `If-None-Match` (RFC 9110, section 13.1): `*`, or at most {@link ENTITY_TAGS_MAX} entity
 * tags. Empty elements of the list are ignored (section 5.6.1.2).
 */
export const entityTagsSchema = z
  .string()
  .regex(LIST_OF_TAGS)
  .describe('`*`, or entity tags in double quotes');

/** An entity tag (RFC 9110, section 8.8.3). */
export interface EntityTag {
  readonly isWeak: boolean;
  readonly opaque: string;
}

/** @returns undefined for anything but `*` or a list of at most {@link ENTITY_TAGS_MAX} entity tags. */
export function parseEntityTags(value: string): '*' | readonly EntityTag[] | undefined {
  if (!entityTagsSchema.safeParse(value).success) return undefined;
  if (value.trim() === '*') return '*';
  return [...value.matchAll(/(W\/)?"([\x21\x23-\x7e]*)"/g)].map(([, weak, opaque = '']) => ({
    isWeak: weak !== undefined,
    opaque,
  }));
}

/** The tags that can match in a strong comparison. Weak ones never do (RFC 9110, section 8.8.3.2). */
export function strongTags(tags: readonly EntityTag[]): string[] {
  return tags.filter(({ isWeak }) => !isWeak).map(({ opaque }) => opaque);
}

/** `Idempotency-Key`: identifies one request of one subject and root, for a day at most. */
export const idempotencyKeySchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters without spaces')
  .describe('For a day, the same request gets the same answer; another request with this key is refused');
