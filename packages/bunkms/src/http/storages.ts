import { mayUseKey } from '@bundoc/shared/contract/grants';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import {
  advanceStorageSchema,
  deletionPageSchema,
  generationSchema,
  storageIdSchema,
  storageInfoSchema,
  takeOverStorageSchema,
} from '@bundoc/shared/contract/storages';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { noQuery, pageQuery } from '../http/query.ts';
import { listDeletions } from '../keys/shred-key.ts';
import { advanceStorage, storageInfo, takeOverStorage } from '../keys/storages.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { type BodyRoute, EXAMPLE_STORAGE } from './key-requests.ts';
import type { ServiceGate } from './services.ts';

const storageParamsSchema = z.object({ id: storageIdSchema });
const deletionsQuery = z.strictObject({ generation: generationSchema, ...pageQuery(keyNameSchema) });
const EXAMPLE_PARAMS = { id: EXAMPLE_STORAGE.storage };
const ANSWER = { 200: { description: 'The storage', schema: storageInfoSchema } };

/** Storages of Bundoc: their generations and their unfinished deletions. */
export function registerStorageRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerReading(app, guards, services);
  registerAdvance(app, guards, services);
  registerTakeOver(app, guards, services);
  registerDeletions(app, guards, services);
}

function registerReading(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const reading = describe({
    id: 'readStorage',
    tag: 'storages',
    summary: 'A storage and its generation',
    access: { kind: 'token', scopes: ['kms:read_key'], serviceOnly: true, grant: 'project keys' },
    params: storageParamsSchema,
    answers: ANSWER,
    refusals: ['storage_not_found', 'integrity_error'],
    examples: { unknown: { params: EXAMPLE_PARAMS, status: 404 } },
  });
  app.get(
    '/v1/storages/:id',
    { onRequest: guards.serviceForStorage('kms:read_key'), config: reading },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      return storageInfo(services().keys, id);
    },
  );
}

function registerAdvance(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const advance = describe({
    id: 'advanceStorage',
    tag: 'storages',
    summary: 'Give a storage a new generation',
    description:
      'Only from one of the generations in `from`, so that of two copies of a storage only one continues. An unknown storage is registered.',
    access: { kind: 'token', scopes: ['kms:create_key'], serviceOnly: true, grant: 'project keys' },
    params: storageParamsSchema,
    body: jsonBody(advanceStorageSchema),
    answers: ANSWER,
    refusals: ['storage_superseded', 'integrity_error', 'audit_unavailable', 'rate_limited'],
    examples: {
      register: { params: EXAMPLE_PARAMS, body: { from: [], to: EXAMPLE_STORAGE.generation }, status: 200 },
      noGeneration: { params: EXAMPLE_PARAMS, body: { from: [] }, status: 400 },
    },
  });
  app.post<BodyRoute>(
    '/v1/storages/:id/advance',
    { onRequest: guards.serviceForStorage('kms:create_key'), config: advance },
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
  const takeOver = describe({
    id: 'takeOverStorage',
    tag: 'storages',
    summary: 'Let another copy of a storage take its place',
    description:
      'The copy with that `generation`, or without one the next copy that starts. Refused with `until` while keys that were released to the storage may be in use, unless `force` is true.',
    access: { kind: 'token', scopes: ['kms:manage_key'], grant: 'project keys' },
    params: storageParamsSchema,
    body: jsonBody(takeOverStorageSchema),
    answers: ANSWER,
    refusals: ['storage_not_found', 'lease_live', 'integrity_error', 'audit_unavailable'],
    examples: {
      unknown: { params: EXAMPLE_PARAMS, body: {}, status: 404 },
      forced: { params: EXAMPLE_PARAMS, body: { force: true }, status: 404 },
    },
  });
  app.post<BodyRoute>(
    '/v1/storages/:id/take-over',
    { onRequest: guards.storage('kms:manage_key'), config: takeOver },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { id } = validate(storageParamsSchema, request.params, 'params');
      const wanted = validate(takeOverStorageSchema, parseJsonObject(request.body).value, 'body');
      return takeOverStorage(services().keys, id, wanted, callerOf(request));
    },
  );
}

function registerDeletions(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const deletions = describe({
    id: 'listDeletions',
    tag: 'storages',
    summary: 'Unfinished deletions of a storage',
    description:
      'Only keys that the token names, by name. A page may be short or empty and still have a `next_cursor`.',
    access: { kind: 'token', scopes: ['kms:shred_key'], serviceOnly: true },
    params: storageParamsSchema,
    query: deletionsQuery,
    answers: { 200: { description: 'A page', schema: deletionPageSchema } },
    refusals: ['storage_superseded', 'integrity_error'],
    examples: {
      superseded: {
        params: EXAMPLE_PARAMS,
        query: { generation: EXAMPLE_STORAGE.generation },
        status: 409,
      },
    },
  });
  app.get(
    '/v1/storages/:id/deletions',
    { onRequest: guards.service('kms:shred_key'), config: deletions },
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
