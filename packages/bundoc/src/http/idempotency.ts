import { AppError } from '@bundoc/shared/contract/app-error';
import { idempotencyKeySchema } from '@bundoc/shared/contract/headers';
import type { Claims } from '@bundoc/shared/contract/tokens';
import { claimsOf } from '@bundoc/shared/http/guard';
import { essenceOf } from '@bundoc/shared/http/media-type';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { digestInTurns } from '../documents/large-content.ts';
import { UPDATE_TYPE } from '../documents/patch/read-update.ts';
import { shortHash } from '../engine/port/short-hash.ts';
import type { WorkOptions } from '../service/documents.ts';
import type { Work } from '../work/work.ts';

/** The header of every write. */
export const idempotencyHeaders = z.object({ 'idempotency-key': idempotencyKeySchema.optional() });

/** The headers that affect a request's effect, besides its path, method and body. */
const HASHED_HEADERS = ['if-match', 'if-none-match'] as const;

/**
 * Options of a write with its `Idempotency-Key`, bound to its sender and the whole request. Project and path
 * are part of the request, so one key for two documents is refused instead of treated as a repetition.
 *
 * @throws AppError `invalid_request` for a key that is empty, too long, or not visible ASCII.
 */
export function commitOptions(request: FastifyRequest, work: Work): WorkOptions | Promise<WorkOptions> {
  const key = request.headers['idempotency-key'];
  return key === undefined ? { work } : idempotentOptions(request, key, work);
}

async function idempotentOptions(
  request: FastifyRequest,
  key: string | string[],
  work: Work,
): Promise<WorkOptions> {
  if (typeof key !== 'string' || !idempotencyKeySchema.safeParse(key).success)
    throw new AppError('invalid_request', {
      errors: [{ path: 'headers.idempotency-key', message: 'must be 1 to 255 visible ASCII characters' }],
    });
  const headers = HASHED_HEADERS.map((name) => String(request.headers[name] ?? ''));
  // An update and a merge patch may have the same body.
  const type = essenceOf(request.headers['content-type']);
  if (type === UPDATE_TYPE) headers.push(type);
  const body = request.body instanceof Buffer ? request.body : Buffer.of();
  return {
    work,
    idempotency: {
      key: shortHash(...senderOf(claimsOf(request)), key),
      request: shortHash(request.method, request.url, ...headers, await digestInTurns(body, work)),
    },
  };
}

/**
 * Whose keys these are. A tenant chooses the subjects of its tokens, but not their root, so the root
 * separates them from all others. A token that is its own root comes from an operator, whose subjects are
 * trusted: a new token for the same subject keeps the keys of the last one.
 */
function senderOf({ sub, jti, root }: Claims): readonly string[] {
  return root === jti ? [sub] : [root ?? jti, sub];
}
