import { issueTokenSchema, type TokenInfo } from '@bundoc/shared/contract/tokens';
import { AppError } from '@bundoc/shared/errors';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callerOf, claimsOf, familyOf, type Guards } from '../http/guard.ts';
import { noQuery, pageQuery } from '../http/query.ts';
import type { ServiceGate } from '../services.ts';

const jtiParamsSchema = z.object({ jti: z.uuid() });
const listQuery = z.strictObject(pageQuery(z.uuid()));

export function registerTokenRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<{ Body: Buffer | undefined }>(
    '/v1/tokens',
    { onRequest: guards.scope('kms:admin') },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(issueTokenSchema, parseJsonObject(request.body).value, 'body');
      return reply.code(201).send(await services().tokens.issue(wanted, callerOf(request)));
    },
  );

  app.post<{ Body: Buffer | undefined }>(
    '/v1/tokens/renew',
    { onRequest: guards.token },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      if ((request.body?.length ?? 0) > 0)
        throw new AppError('invalid_request', { detail: 'a renewal takes no body' });
      const { tokens, limits } = services();
      limits.takeRenewal(familyOf(request));
      return reply.code(201).send(await tokens.renew(claimsOf(request), callerOf(request)));
    },
  );

  app.get('/v1/tokens', { onRequest: guards.scope('kms:admin') }, async (request) => {
    const { limit, cursor } = validate(listQuery, request.query, 'query');
    const { items, more } = await services().tokens.list({ limit, after: cursor });
    return { tokens: items, ...nextCursor(items, more) };
  });

  app.delete('/v1/tokens/:jti', { onRequest: guards.scope('kms:admin') }, async (request, reply) => {
    validate(noQuery, request.query, 'query');
    const { jti } = validate(jtiParamsSchema, request.params, 'params');
    await services().tokens.revoke(jti, callerOf(request));
    return reply.code(204).send();
  });
}

function nextCursor(tokens: readonly TokenInfo[], more: boolean): { next_cursor?: string } {
  const last = tokens.at(-1);
  return more && last !== undefined ? { next_cursor: last.jti } : {};
}
