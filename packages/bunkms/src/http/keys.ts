import { requireKey } from '@bundoc/shared/contract/grants';
import { idempotencyKeySchema } from '@bundoc/shared/contract/headers';
import {
  createKeySchema,
  keyDetailSchema,
  keyInfoSchema,
  keyNameSchema,
  keyPageSchema,
  leasePageSchema,
  updateKeySchema,
} from '@bundoc/shared/contract/keys';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { noQuery, pageQuery, seqCursor } from '../http/query.ts';
import { createKey } from '../keys/create-key.ts';
import { updateKey } from '../keys/key-lifecycle.ts';
import { listLeases } from '../keys/leases.ts';
import { listKeys, readKey } from '../keys/read-keys.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { ifMatchHeaders, sendKey } from './if-match.ts';
import {
  type BodyRoute,
  CHANGE_REFUSALS,
  EXAMPLE_KEY,
  EXAMPLE_STORAGE,
  KEY_HEADERS,
  KEY_REFUSALS,
  keyAccess,
  keyParamsSchema,
  keyRequestOf,
  requireStorageOrAdministrator,
} from './key-requests.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import type { ServiceGate } from './services.ts';

const listQuery = z.strictObject(pageQuery(keyNameSchema));
const leasesQuery = z.strictObject(pageQuery(seqCursor));
const createHeaders = z.object({ 'idempotency-key': idempotencyKeySchema.optional() });
const EXAMPLE_PARAMS = { name: 'project-a-dek' };

/** Creating and reading keys, and their policies. */
export function registerKeyRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerCreation(app, guards, services);
  registerListing(app, guards, services);
  registerReading(app, guards, services);
  registerLeases(app, guards, services);
  registerUpdate(app, guards, services);
}

function registerCreation(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const creation = describe({
    id: 'createKey',
    tag: 'keys',
    summary: 'Make a key',
    description:
      'With `storage`, that storage holds the key. As the storage, a service token names its present `generation`. Without it, the scope `kms:manage_key` is needed as well.',
    access: keyAccess('kms:create_key'),
    headers: createHeaders,
    body: jsonBody(createKeySchema),
    answers: {
      201: {
        description: 'Made',
        schema: keyInfoSchema,
        headers: { ...KEY_HEADERS, Location: 'Path of the key' },
      },
    },
    refusals: [
      'key_exists',
      'key_destroyed',
      'key_damaged',
      'storage_superseded',
      'idempotency_mismatch',
      'integrity_error',
      'rate_limited',
      'disk_full',
    ],
    examples: {
      make: {
        body: { name: 'project-b-dek', type: 'aes-256' },
        status: 201,
        answer: { ...EXAMPLE_KEY, name: 'project-b-dek' },
      },
      withPolicies: {
        summary: 'Only for encryption, rotated once a quarter',
        headers: { 'idempotency-key': 'make-signing-1' },
        body: { name: 'encryption', type: 'aes-256', exportable: false, rotate_after_days: 90 },
        status: 201,
      },
      held: {
        summary: 'By an administrator, for a storage of Bundoc, which becomes its holder',
        body: { name: 'project-c-dek', type: 'aes-256', storage: EXAMPLE_STORAGE.storage },
        status: 201,
      },
      superseded: {
        summary: 'Refused, because the storage has another generation',
        body: { name: 'project-d-dek', type: 'aes-256', ...EXAMPLE_STORAGE },
        status: 409,
      },
      exists: { body: { name: 'project-a-dek', type: 'aes-256' }, status: 409 },
      badName: { body: { name: 'Project A', type: 'aes-256' }, status: 400 },
    },
  });
  app.post<BodyRoute>(
    '/v1/keys',
    { onRequest: guards.scope('kms:create_key'), config: { ...OF_ONE, ...creation } },
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
  const listing = describe({
    id: 'listKeys',
    tag: 'keys',
    summary: 'List keys',
    description:
      'The keys that the token names, by name, including destroyed ones. `damaged` names keys whose state is unknown.',
    access: { kind: 'token', scopes: ['kms:read_key'] },
    query: listQuery,
    answers: { 200: { description: 'A page', schema: keyPageSchema } },
    refusals: ['rate_limited'],
    examples: {
      firstPage: { query: { limit: '20' }, status: 200, answer: { keys: [EXAMPLE_KEY] } },
      goOn: { query: { cursor: 'project-a-dek' }, status: 200 },
      tooMany: { query: { limit: '501' }, status: 400 },
    },
  });
  app.get(
    '/v1/keys',
    { onRequest: guards.scope('kms:read_key'), config: { ...OF_PAGE, ...listing } },
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
  const reading = describe({
    id: 'readKey',
    tag: 'keys',
    summary: 'A key and its versions',
    description: 'Without key material, wrapped or not.',
    access: keyAccess('kms:read_key'),
    params: keyParamsSchema,
    answers: { 200: { description: 'The key', schema: keyDetailSchema, headers: KEY_HEADERS } },
    refusals: [...KEY_REFUSALS, 'rate_limited'],
    examples: {
      read: { params: EXAMPLE_PARAMS, status: 200 },
      another: { params: { name: 'none-dek' }, status: 404 },
    },
  });
  app.get(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:read_key'), config: { ...OF_ONE, ...reading } },
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
  const leases = describe({
    id: 'listLeases',
    tag: 'keys',
    summary: 'Who may hold the raw key, and until when',
    description: 'Newest first. A page may hold fewer than `limit` and still have a `next_cursor`.',
    access: keyAccess('kms:read_key'),
    params: keyParamsSchema,
    query: leasesQuery,
    answers: { 200: { description: 'A page', schema: leasePageSchema } },
    refusals: [...KEY_REFUSALS, 'rate_limited'],
    examples: { read: { params: EXAMPLE_PARAMS, query: { limit: '20' }, status: 200 } },
  });
  app.get(
    '/v1/keys/:name/leases',
    { onRequest: guards.keyInPath('kms:read_key'), config: { ...OF_PAGE, ...leases } },
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
  const update = describe({
    id: 'updateKey',
    tag: 'keys',
    summary: 'Change the policies of a key',
    description: 'Absent members do not change. `exportable` may only become false.',
    access: keyAccess('kms:manage_key'),
    params: keyParamsSchema,
    headers: ifMatchHeaders,
    body: jsonBody(updateKeySchema),
    answers: { 200: { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS } },
    refusals: [...CHANGE_REFUSALS, 'key_not_exportable'],
    examples: {
      rotateQuarterly: { params: EXAMPLE_PARAMS, body: { rotate_after_days: 90 }, status: 200 },
      anotherState: {
        params: EXAMPLE_PARAMS,
        headers: { 'if-match': '"an-older-state"' },
        body: { rotate_after_days: 90 },
        status: 412,
      },
    },
  });
  app.patch<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:manage_key'), config: update },
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
