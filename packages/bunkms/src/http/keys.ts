import { requireKey } from '@bundoc/shared/contract/grants';
import { createKeySchema, updateKeySchema } from '@bundoc/shared/contract/keys';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { noQuery } from '../http/query.ts';
import { createKey } from '../keys/create-key.ts';
import { updateKey } from '../keys/key-lifecycle.ts';
import { listLeases } from '../keys/leases.ts';
import { listKeys, readKey } from '../keys/read-keys.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { sendKey } from './if-match.ts';
import {
  type BodyRoute,
  keyParamsSchema,
  keyRequestOf,
  requireStorageOrAdministrator,
} from './key-requests.ts';
import {
  CREATION,
  createHeaders,
  LEASES,
  LISTING,
  leasesQuery,
  listQuery,
  READING,
  UPDATE,
} from './keys.openapi.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import type { ServiceGate } from './services.ts';

/** Creating and reading keys, and their policies. */
export function registerKeyRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerCreation(app, guards, services);
  registerListing(app, guards, services);
  registerReading(app, guards, services);
  registerLeases(app, guards, services);
  registerUpdate(app, guards, services);
}

function registerCreation(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>(
    '/v1/keys',
    { onRequest: guards.scope('kms:create_key'), config: { ...OF_ONE, ...CREATION } },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(createKeySchema, parseJsonObject(request.body).value, 'body');
      // The name is in the body, so this is the earliest check. The store has not been read yet.
      const claims = claimsOf(request);
      requireKey(claims, wanted.name);
      if (wanted.storage !== undefined) requireStorageOrAdministrator(claims, wanted.generation);
      const key = idempotencyKeyOf(request);
      const idempotency =
        key === undefined ? undefined : { root: subjectOf(request), subject: claims.sub, key };
      const { keys, limits } = services();
      limits.takeCreation(subjectOf(request));
      const made = await createKey(keys, wanted, callerOf(request), idempotency);
      return reply.code(201).header('location', `/v1/keys/${made.name}`).send(sendKey(reply, made));
    },
  );
}

function registerListing(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/keys',
    { onRequest: guards.scope('kms:read_key'), config: { ...OF_PAGE, ...LISTING } },
    async (request) => {
      const { limit, cursor } = validate(listQuery, request.query, 'query');
      const { keys: globs } = claimsOf(request);
      const { keys, limits } = services();
      limits.takeRead(subjectOf(request), limit);
      return listKeys(keys, globs, { limit, after: cursor }, callerOf(request));
    },
  );
}

function registerReading(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:read_key'), config: { ...OF_ONE, ...READING } },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const { name } = validate(keyParamsSchema, request.params, 'params');
      const { keys, limits } = services();
      limits.takeRead(subjectOf(request));
      return sendKey(reply, await readKey(keys, name, callerOf(request)));
    },
  );
}

function registerLeases(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/keys/:name/leases',
    { onRequest: guards.keyInPath('kms:read_key'), config: { ...OF_PAGE, ...LEASES } },
    async (request) => {
      const { limit, cursor: before } = validate(leasesQuery, request.query, 'query');
      const { name } = validate(keyParamsSchema, request.params, 'params');
      const { keys, limits } = services();
      limits.takeRead(subjectOf(request), limit);
      return listLeases(keys, name, { limit, before }, callerOf(request));
    },
  );
}

function registerUpdate(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.patch<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:manage_key'), config: UPDATE },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const asked = keyRequestOf(request);
      const wanted = validate(updateKeySchema, parseJsonObject(request.body).value, 'body');
      return sendKey(
        reply,
        await updateKey(services().keys, { ...asked, update: wanted }, callerOf(request)),
      );
    },
  );
}

function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  return validate(createHeaders, request.headers, 'headers')['idempotency-key'];
}
