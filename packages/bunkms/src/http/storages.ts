import { mayUseKey } from '@bundoc/shared/contract/grants';
import { advanceStorageSchema, takeOverStorageSchema } from '@bundoc/shared/contract/storages';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { noQuery } from '../http/query.ts';
import { listDeletions } from '../keys/shred-key.ts';
import { advanceStorage, storageInfo, takeOverStorage } from '../keys/storages.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import type { BodyRoute } from './key-requests.ts';
import type { ServiceGate } from './services.ts';
import {
  ADVANCE,
  DELETIONS,
  deletionsQuery,
  READING,
  storageParamsSchema,
  TAKE_OVER,
} from './storages.openapi.ts';

/** Storages of Bundoc: their generations and their unfinished deletions. */
export function registerStorageRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerReading(app, guards, services);
  registerAdvance(app, guards, services);
  registerTakeOver(app, guards, services);
  registerDeletions(app, guards, services);
}

function registerReading(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/storages/:id',
    { onRequest: guards.serviceForStorage('kms:read_key'), config: READING },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      return storageInfo(services().keys, id);
    },
  );
}

function registerAdvance(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>(
    '/v1/storages/:id/advance',
    { onRequest: guards.serviceForStorage('kms:create_key'), config: ADVANCE },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      const wanted = validate(advanceStorageSchema, parseJsonObject(request.body).value, 'body');
      services().limits.takeAdvance(subjectOf(request));
      return advanceStorage(services().keys, id, wanted, callerOf(request));
    },
  );
}

function registerTakeOver(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>(
    '/v1/storages/:id/take-over',
    { onRequest: guards.storage('kms:manage_key'), config: TAKE_OVER },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      const wanted = validate(takeOverStorageSchema, parseJsonObject(request.body).value, 'body');
      return takeOverStorage(services().keys, id, wanted, callerOf(request));
    },
  );
}

function registerDeletions(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/storages/:id/deletions',
    { onRequest: guards.service('kms:shred_key'), config: DELETIONS },
    async (request) => {
      const { generation, limit, cursor } = validate(deletionsQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      const claims = claimsOf(request);
      return listDeletions(services().keys, { storage: id, generation }, { limit, after: cursor }, (name) =>
        mayUseKey(claims, name),
      );
    },
  );
}
