import {
  kekIdSchema,
  kekStatusSchema,
  kekVerificationSchema,
  retiredKekSchema,
  retireKekSchema,
  rotateKekSchema,
  unfetchedPageSchema,
} from '@bundoc/shared/contract/kek';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { kekStatus, listStaleCopies, retireKek, rotateKek, verifyWrapping } from '../kek/kek-rotation.ts';
import { callerOf, type Guards, KEK_READERS, subjectOf } from './guard.ts';
import { type BodyRoute, refuseBody } from './key-requests.ts';
import { noQuery, pageQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

const kekParamsSchema = z.object({ kek_id: kekIdSchema });
const namesQuery = z.strictObject(pageQuery(keyNameSchema));

const READ = { kind: 'token', anyScope: KEK_READERS, serviceOnly: true } as const;
const CHANGE = { kind: 'token', scopes: ['kms:manage_kek'], serviceOnly: true } as const;
const UNKNOWN_KEK = '0123456789abcdef';

const STATUS = describe({
  id: 'readKeks',
  tag: 'kek',
  summary: 'The KEKs by id, what is wrapped with each, and the progress of a rotation',
  access: READ,
  answers: { 200: { description: 'The states of the KEKs', schema: kekStatusSchema } },
  refusals: ['rate_limited'],
  examples: { read: { status: 200 } },
});

const ROTATION = describe({
  id: 'rotateKek',
  tag: 'kek',
  summary: 'Make a KEK the current one',
  description: 'The staged one, unless another is named. Everything is rewrapped with it in the background.',
  access: CHANGE,
  body: jsonBody(rotateKekSchema, { optional: true }),
  answers: { 202: { description: 'Begun', schema: kekStatusSchema } },
  refusals: ['kek_unusable', 'kek_not_found', 'disk_full'],
  examples: {
    noneStaged: { summary: 'Refused, because none is staged', status: 409 },
    unknown: { body: { kek_id: UNKNOWN_KEK }, status: 404 },
  },
});

const VERIFICATION = describe({
  id: 'verifyWrapping',
  tag: 'kek',
  summary: 'Unwrap the versions of a page of keys, and name the keys that do not open',
  access: CHANGE,
  query: namesQuery,
  answers: { 200: { description: 'What was found', schema: kekVerificationSchema } },
  refusals: ['disk_full'],
  examples: { firstPage: { query: { limit: '100' }, status: 200 } },
});

const RETIREMENT = describe({
  id: 'retireKek',
  tag: 'kek',
  summary: 'Retire a KEK with which nothing is wrapped',
  access: CHANGE,
  body: jsonBody(retireKekSchema),
  answers: { 200: { description: 'Retired', schema: retiredKekSchema } },
  refusals: ['kek_not_found', 'kek_in_use', 'kek_unfetched', 'disk_full'],
  examples: { unknown: { body: { kek_id: UNKNOWN_KEK }, status: 404 } },
});

const UNFETCHED = describe({
  id: 'listUnfetched',
  tag: 'kek',
  summary: 'Keys whose holders may have copies only under this KEK or older ones',
  access: READ,
  params: kekParamsSchema,
  query: namesQuery,
  answers: { 200: { description: 'A page', schema: unfetchedPageSchema } },
  refusals: ['kek_not_found', 'rate_limited'],
  examples: { unknown: { params: { kek_id: UNKNOWN_KEK }, status: 404 } },
});

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
