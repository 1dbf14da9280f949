import {
  createKeySchema,
  idempotencyKeySchema,
  keyNameSchema,
  keyVersionParamSchema,
  PENDING_DAYS,
  updateKeySchema,
} from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import { requireKey } from '@bundoc/shared/grants';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { callerOf, claimsOf, type Guards } from '../http/guard.ts';
import { ifMatchOf, sendKey } from '../http/if-match.ts';
import { noQuery, pageQuery, seqCursor } from '../http/query.ts';
import type { KeyRequest } from '../service/change-key.ts';
import { createKey } from '../service/create-key.ts';
import { destroyKey, destroyVersion } from '../service/destroy-key.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion, updateKey } from '../service/key-lifecycle.ts';
import { listKeys, readKey } from '../service/keys.ts';
import { listLeases } from '../service/leases.ts';
import { rotateKey } from '../service/rotate-key.ts';
import type { ServiceGate } from '../services.ts';

export const keyParamsSchema = z.object({ name: keyNameSchema });
const versionParamsSchema = z.object({ name: keyNameSchema, version: keyVersionParamSchema });
const listQuery = z.strictObject(pageQuery(keyNameSchema));
const leasesQuery = z.strictObject(pageQuery(seqCursor));
const rotateQuery = z.strictObject({ expected_version: keyVersionParamSchema.optional() });
const pendingDaysFault = `must be 0, or a whole number from ${PENDING_DAYS.min} to ${PENDING_DAYS.max}`;
const deleteQuery = z.strictObject({
  pending_days: z
    .string()
    .regex(/^(?:0|[1-9]\d?)$/, pendingDaysFault)
    .transform(Number)
    .refine((days) => days === 0 || (days >= PENDING_DAYS.min && days <= PENDING_DAYS.max), pendingDaysFault)
    .default(PENDING_DAYS.default),
  confirm: z.string().max(128).optional(),
});
const createHeaders = z.object({ 'idempotency-key': idempotencyKeySchema.optional() });
const confirmQuery = z.strictObject({ confirm: z.string().max(128).optional() });

interface BodyRoute {
  Body: Buffer | undefined;
}

export function registerKeyRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>('/v1/keys', { onRequest: guards.scope('kms:create_key') }, async (request, reply) => {
    validate(noQuery, request.query, 'query');
    const wanted = validate(createKeySchema, parseJsonObject(request.body).value, 'body');
    // The name is in the body, so this is the earliest moment; the store has not been asked yet.
    const claims = claimsOf(request);
    requireKey(claims, wanted.name);
    const key = idempotencyKeyOf(request);
    const idempotency = key === undefined ? undefined : { subject: claims.sub, key };
    const made = await createKey(services().keys, wanted, callerOf(request), idempotency);
    return reply.code(201).header('location', `/v1/keys/${made.name}`).send(sendKey(reply, made));
  });

  app.get('/v1/keys', { onRequest: guards.scope('kms:read_key') }, async (request) => {
    const { limit, cursor } = validate(listQuery, request.query, 'query');
    const { keys: globs } = claimsOf(request);
    return listKeys(services().keys, globs, { limit, after: cursor }, callerOf(request));
  });

  app.get('/v1/keys/:name', { onRequest: guards.keyInPath('kms:read_key') }, async (request, reply) => {
    validate(noQuery, request.query, 'query');
    const { name } = validate(keyParamsSchema, request.params, 'params');
    return sendKey(reply, await readKey(services().keys, name, callerOf(request)));
  });

  app.get('/v1/keys/:name/leases', { onRequest: guards.keyInPath('kms:read_key') }, async (request) => {
    const { limit, cursor: before } = validate(leasesQuery, request.query, 'query');
    const { name } = validate(keyParamsSchema, request.params, 'params');
    return listLeases(services().keys, name, { limit, before }, callerOf(request));
  });

  app.patch<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:manage_key') },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const asked = keyRequestOf(request);
      const update = validate(updateKeySchema, parseJsonObject(request.body).value, 'body');
      return sendKey(reply, await updateKey(services().keys, { ...asked, update }, callerOf(request)));
    },
  );

  app.post<BodyRoute>(
    '/v1/keys/:name/rotate',
    { onRequest: guards.keyInPath('kms:rotate_key') },
    async (request, reply) => {
      const { expected_version: expectedVersion } = validate(rotateQuery, request.query, 'query');
      const asked = keyRequestOf(request);
      refuseBody(request);
      return sendKey(
        reply,
        await rotateKey(services().keys, { ...asked, expectedVersion }, callerOf(request)),
      );
    },
  );

  for (const [action, change] of [
    ['enable', enableKey],
    ['disable', disableKey],
    ['restore', restoreKey],
  ] as const)
    app.post<BodyRoute>(
      `/v1/keys/:name/${action}`,
      { onRequest: guards.keyInPath('kms:manage_key') },
      async (request, reply) => {
        validate(noQuery, request.query, 'query');
        const asked = keyRequestOf(request);
        refuseBody(request);
        return sendKey(reply, await change(services().keys, asked, callerOf(request)));
      },
    );

  app.delete<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:destroy_key') },
    async (request, reply) => {
      const { pending_days: pendingDays, confirm } = validate(deleteQuery, request.query, 'query');
      const asked = keyRequestOf(request);
      refuseBody(request);
      if (pendingDays === 0) {
        requireConfirmation(confirm, asked.name);
        return sendKey(reply, await destroyKey(services().keys, asked, callerOf(request)));
      }
      if (confirm !== undefined) throw invalidConfirmation('goes with pending_days=0 alone');
      const key = await scheduleDeletion(services().keys, { ...asked, pendingDays }, callerOf(request));
      return sendKey(reply.code(202), key);
    },
  );

  app.delete<BodyRoute>(
    '/v1/keys/:name/versions/:version',
    { onRequest: guards.keyInPath('kms:destroy_key') },
    async (request, reply) => {
      const { confirm } = validate(confirmQuery, request.query, 'query');
      const { name, version } = validate(versionParamsSchema, request.params, 'params');
      refuseBody(request);
      requireConfirmation(confirm, name);
      const asked = { name, version, ifMatch: ifMatchOf(request) };
      return sendKey(reply, await destroyVersion(services().keys, asked, callerOf(request)));
    },
  );
}

function keyRequestOf(request: FastifyRequest): KeyRequest {
  const { name } = validate(keyParamsSchema, request.params, 'params');
  return { name, ifMatch: ifMatchOf(request) };
}

function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  return validate(createHeaders, request.headers, 'headers')['idempotency-key'];
}

function refuseBody(request: FastifyRequest<BodyRoute>): void {
  if ((request.body?.length ?? 0) > 0)
    throw new AppError('invalid_request', { detail: 'this request takes no body' });
}

/** What cannot be taken back is asked for by name, twice. */
function requireConfirmation(confirm: string | undefined, name: string): void {
  if (confirm !== name) throw invalidConfirmation('must repeat the name of the key');
}

function invalidConfirmation(message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: 'query.confirm', message }] });
}
