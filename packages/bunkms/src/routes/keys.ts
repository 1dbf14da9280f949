import { createKeySchema, keyNameSchema, keyVersionParamSchema } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { requireKey } from '@bundoc/shared/grants';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callerOf, claimsOf, type Guards } from '../http/guard.ts';
import { noQuery, pageQuery, seqCursor } from '../http/query.ts';
import { createKey, listKeys, readKey } from '../service/keys.ts';
import { listLeases } from '../service/leases.ts';
import { rotateKey } from '../service/rotate-key.ts';
import type { ServiceGate } from '../services.ts';

export const keyParamsSchema = z.object({ name: keyNameSchema });
const listQuery = z.strictObject(pageQuery(keyNameSchema));
const leasesQuery = z.strictObject(pageQuery(seqCursor));
const rotateQuery = z.strictObject({ expected_version: keyVersionParamSchema.optional() });

export function registerKeyRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<{ Body: Buffer | undefined }>(
    '/v1/keys',
    { onRequest: guards.scope('kms:create_key') },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(createKeySchema, parseJsonObject(request.body).value, 'body');
      // The name is in the body, so this is the earliest moment; the store has not been asked yet.
      requireKey(claimsOf(request), wanted.name);
      const key = await createKey(services().keys, wanted, callerOf(request));
      return reply.code(201).header('location', `/v1/keys/${key.name}`).send(key);
    },
  );

  app.get('/v1/keys', { onRequest: guards.scope('kms:read_key') }, async (request) => {
    const { limit, cursor } = validate(listQuery, request.query, 'query');
    const { keys: globs } = claimsOf(request);
    return listKeys(services().keys, globs, { limit, after: cursor }, callerOf(request));
  });

  app.get('/v1/keys/:name', { onRequest: guards.keyInPath('kms:read_key') }, async (request) => {
    validate(noQuery, request.query, 'query');
    const { name } = validate(keyParamsSchema, request.params, 'params');
    return readKey(services().keys, name, callerOf(request));
  });

  app.get('/v1/keys/:name/leases', { onRequest: guards.keyInPath('kms:read_key') }, async (request) => {
    const { limit, cursor: before } = validate(leasesQuery, request.query, 'query');
    const { name } = validate(keyParamsSchema, request.params, 'params');
    return listLeases(services().keys, name, { limit, before }, callerOf(request));
  });

  app.post<{ Body: Buffer | undefined }>(
    '/v1/keys/:name/rotate',
    { onRequest: guards.keyInPath('kms:rotate_key') },
    async (request) => {
      const { expected_version: expectedVersion } = validate(rotateQuery, request.query, 'query');
      const { name } = validate(keyParamsSchema, request.params, 'params');
      if ((request.body?.length ?? 0) > 0)
        throw new AppError('invalid_request', { detail: 'a rotation takes no body' });
      return rotateKey(services().keys, { name, expectedVersion }, callerOf(request));
    },
  );
}
