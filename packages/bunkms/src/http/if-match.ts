import { AppError } from '@bundoc/shared/contract/app-error';
import {
  ENTITY_TAGS_MAX,
  entityTagsSchema,
  parseEntityTags,
  strongTags,
} from '@bundoc/shared/contract/headers';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type IfMatch, tagOf } from '../keys/change-key.ts';

/** The headers of every change of a key. */
export const ifMatchHeaders = z.object({ 'if-match': entityTagsSchema.optional() });

/**
 * The `If-Match` of a change (RFC 9110, section 13.1.1). The comparison is strong: a tag with `W/` matches
 * nothing.
 *
 * @throws AppError `invalid_request` for a header that is neither `*` nor entity tags.
 */
export function ifMatchOf(request: FastifyRequest): IfMatch {
  const value = request.headers['if-match'];
  if (value === undefined) return undefined;
  const tags = parseEntityTags(value);
  if (tags !== undefined) return tags === '*' ? tags : strongTags(tags);
  throw new AppError('invalid_request', {
    errors: [
      {
        path: 'headers.If-Match',
        message: `must be * or at most ${ENTITY_TAGS_MAX} entity tags in double quotes`,
      },
    ],
  });
}

/** Sends the public facts of a key, with the entity tag of that state. */
export function sendKey<T extends { readonly id: string; readonly revision: number }>(
  reply: FastifyReply,
  key: T,
): T {
  reply.header('etag', `"${tagOf(key)}"`);
  return key;
}
