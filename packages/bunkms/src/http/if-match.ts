import { ENTITY_TAGS_MAX, entityTagsSchema } from '@bundoc/shared/contract/headers';
import { AppError } from '@bundoc/shared/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type IfMatch, tagOf } from '../service/change-key.ts';

/** The header of every change of a key. */
export const ifMatchHeaders = z.object({ 'if-match': entityTagsSchema.optional() });

/**
 * The `If-Match` of a change (RFC 9110, section 13.1.1). A `W/` prefix is tolerated: proxies that compress put it before strong tags.
 *
 * @throws AppError `invalid_request` for a header that is neither `*` nor entity tags.
 */
export function ifMatchOf(request: FastifyRequest): IfMatch {
  const value = request.headers['if-match'];
  if (value === undefined) return undefined;
  if (value.trim() === '*') return '*';
  const tags = value.split(',').map((tag) => /^\s*(?:W\/)?"([\x21\x23-\x7e]*)"\s*$/.exec(tag)?.[1]);
  if (tags.length <= ENTITY_TAGS_MAX && tags.every((tag) => tag !== undefined)) return tags;
  throw new AppError('invalid_request', {
    errors: [
      {
        path: 'headers.If-Match',
        message: `must be * or at most ${ENTITY_TAGS_MAX} entity tags in double quotes`,
      },
    ],
  });
}

/** Sends what is told about a key, with the entity tag of that state of it. */
export function sendKey<T extends { readonly id: string; readonly revision: number }>(
  reply: FastifyReply,
  key: T,
): T {
  reply.header('etag', `"${tagOf(key)}"`);
  return key;
}
