import { AppError } from '@bundoc/shared/contract/app-error';
import { idempotencyKeySchema } from '@bundoc/shared/contract/headers';
import { claimsOf } from '@bundoc/shared/http/guard';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { digestInTurns } from '../documents/large-content.ts';
import { shortHash } from '../engine/short-hash.ts';
import type { WorkOptions } from '../service/documents.ts';
import type { Work } from '../work/work.ts';

/** The header of every write. */
export const idempotencyHeaders = z.object({ 'idempotency-key': idempotencyKeySchema.optional() });

/** The headers that affect a request's effect, besides its path, method and body. */
const HASHED_HEADERS = ['if-match', 'if-none-match'] as const;

/**
 * Options of a write with its `Idempotency-Key`, bound to the subject and the whole request. Project and path
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
  const body = request.body instanceof Buffer ? request.body : Buffer.of();
  return {
    work,
    idempotency: {
      key: shortHash(claimsOf(request).sub, key),
      request: shortHash(request.method, request.url, ...headers, await digestInTurns(body, work)),
    },
  };
}
