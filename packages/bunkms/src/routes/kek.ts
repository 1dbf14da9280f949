import { kekIdSchema, retireKekSchema, rotateKekSchema } from '@bundoc/shared/contract/kek';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callerOf, type Guards } from '../http/guard.ts';
import { noQuery, pageQuery } from '../http/query.ts';
import { kekStatus, listUnfetched, retireKek, rotateKek, verifyWrapping } from '../service/kek.ts';
import type { ServiceGate } from '../services.ts';

const kekParamsSchema = z.object({ kek_id: kekIdSchema });
const namesQuery = z.strictObject(pageQuery(keyNameSchema));

interface BodyRoute {
  Body: Buffer | undefined;
}

/** The key encryption keys: how they stand, and their rotation. No route takes or shows a KEK. */
export function registerKekRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const onRequest = guards.scope('kms:admin');

  app.get('/v1/kek', { onRequest }, async (request) => {
    validate(noQuery, request.query, 'query');
    return kekStatus(services().kek.ports);
  });

  app.post<BodyRoute>('/v1/kek/rotate', { onRequest }, async (request, reply) => {
    validate(noQuery, request.query, 'query');
    const body = (request.body?.length ?? 0) === 0 ? {} : parseJsonObject(request.body).value;
    const wanted = validate(rotateKekSchema, body, 'body');
    const { ports, upkeep } = services().kek;
    await upkeep.look();
    await rotateKek(ports, wanted, callerOf(request));
    upkeep.rewrap();
    return reply.code(202).send(await kekStatus(ports));
  });

  app.post<BodyRoute>('/v1/kek/verify', { onRequest }, async (request) => {
    const { limit, cursor } = validate(namesQuery, request.query, 'query');
    if ((request.body?.length ?? 0) > 0)
      throw new AppError('invalid_request', { detail: 'this request takes no body' });
    return verifyWrapping(services().kek.ports, { limit, after: cursor }, callerOf(request));
  });

  app.post<BodyRoute>('/v1/kek/retire', { onRequest }, async (request) => {
    validate(noQuery, request.query, 'query');
    const wanted = validate(retireKekSchema, parseJsonObject(request.body).value, 'body');
    return retireKek(services().kek.ports, wanted, callerOf(request));
  });

  app.get('/v1/kek/:kek_id/unfetched', { onRequest }, async (request) => {
    const { limit, cursor } = validate(namesQuery, request.query, 'query');
    const { kek_id: kekId } = validate(kekParamsSchema, request.params, 'params');
    return listUnfetched(services().kek.ports, kekId, { limit, after: cursor });
  });
}
