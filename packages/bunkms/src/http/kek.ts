import { retireKekSchema, rotateKekSchema } from '@bundoc/shared/contract/kek';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { kekStatus, listStaleCopies, retireKek, rotateKek, verifyWrapping } from '../kek/kek-rotation.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import {
  kekParamsSchema,
  namesQuery,
  RETIREMENT,
  ROTATION,
  STATUS,
  UNFETCHED,
  VERIFICATION,
} from './kek.openapi.ts';
import { type BodyRoute, refuseBody } from './key-requests.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

/** The key encryption keys: their states and their rotation. No route accepts or shows a KEK. */
export function registerKekRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const read = guards.readKeks;
  const change = guards.service('kms:manage_kek');

  app.get('/v1/kek', { onRequest: read, config: STATUS }, async (request) => {
    validate(noQuery, request.query, 'query');
    const { kek, limits } = services();
    limits.takeRead(subjectOf(request));
    return kekStatus(kek.deps);
  });

  app.post<BodyRoute>('/v1/kek/rotate', { onRequest: change, config: ROTATION }, async (request, reply) => {
    validate(noQuery, request.query, 'query');
    const body = (request.body?.length ?? 0) === 0 ? {} : parseJsonObject(request.body).value;
    const wanted = validate(rotateKekSchema, body, 'body');
    const { deps, upkeep } = services().kek;
    await upkeep.poll();
    await rotateKek(deps, wanted, callerOf(request));
    upkeep.rewrap();
    return reply.code(202).send(await kekStatus(deps));
  });

  app.post<BodyRoute>('/v1/kek/verify', { onRequest: change, config: VERIFICATION }, async (request) => {
    const { limit, cursor } = validate(namesQuery, request.query, 'query');
    refuseBody(request);
    return verifyWrapping(services().kek.deps, { limit, after: cursor }, callerOf(request));
  });

  app.post<BodyRoute>('/v1/kek/retire', { onRequest: change, config: RETIREMENT }, async (request) => {
    validate(noQuery, request.query, 'query');
    const wanted = validate(retireKekSchema, parseJsonObject(request.body).value, 'body');
    return retireKek(services().kek.deps, wanted, callerOf(request));
  });

  app.get('/v1/kek/:kek_id/unfetched', { onRequest: read, config: UNFETCHED }, async (request) => {
    const { limit, cursor } = validate(namesQuery, request.query, 'query');
    const { kek_id: kekId } = validate(kekParamsSchema, request.params, 'params');
    const { kek, limits } = services();
    limits.takeRead(subjectOf(request), limit);
    return listStaleCopies(kek.deps, kekId, { limit, after: cursor });
  });
}
