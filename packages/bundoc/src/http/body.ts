import { AppError } from '@bundoc/shared/contract/app-error';
import type { FastifyRequest } from 'fastify';

/** The bytes of a JSON body. @throws AppError `unsupported_media_type` for a request without one. */
export function bodyOf(request: FastifyRequest): Buffer {
  if (request.body instanceof Buffer) return request.body;
  throw new AppError('unsupported_media_type', { detail: 'a body of application/json is required' });
}
