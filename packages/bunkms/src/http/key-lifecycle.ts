import { AppError } from '@bundoc/shared/contract/app-error';
import {
  destroyReceiptSchema,
  keyInfoSchema,
  keyNameSchema,
  keyVersionParamSchema,
  PENDING_DAYS,
} from '@bundoc/shared/contract/keys';
import { validate } from '@bundoc/shared/http/validate';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion } from '../keys/key-lifecycle.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { ifMatchHeaders, ifMatchOf, sendKey } from './if-match.ts';
import {
  type BodyRoute,
  CHANGE_REFUSALS,
  KEY_HEADERS,
  keyAccess,
  keyParamsSchema,
  keyRequestOf,
  refuseBody,
} from './key-requests.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

const versionParamsSchema = z.object({ name: keyNameSchema, version: keyVersionParamSchema });
const rotateQuery = z.strictObject({ expected_version: keyVersionParamSchema.optional() });
const pendingDaysFault = `must be 0, or a whole number from ${PENDING_DAYS.min} to ${PENDING_DAYS.max}`;
const deleteQuery = z.strictObject({
  pending_days: z
    .string()
    .regex(/^(?:0|[1-9]\d?)$/, pendingDaysFault)
    .transform(Number)
    .refine((days) => days === 0 || (days >= PENDING_DAYS.min && days <= PENDING_DAYS.max), pendingDaysFault)
    .default(PENDING_DAYS.default)
    .meta({
      type: 'integer',
      anyOf: [{ const: 0 }, { minimum: PENDING_DAYS.min, maximum: PENDING_DAYS.max }],
      default: PENDING_DAYS.default,
      description: 'How long the key can be restored; 0 destroys it now',
    }),
  confirm: z.string().max(128).optional().describe('The name of the key; only with `pending_days=0`'),
});
const CONFIRM_FAULT = 'must repeat the name of the key';
const confirmQuery = z.strictObject({
  confirm: z.string(CONFIRM_FAULT).max(128, CONFIRM_FAULT).describe('The name of the key again'),
});
const EXAMPLE_PARAMS = { name: 'project-a-dek' };
const CHANGED = { 200: { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS } };

/** The life cycle of keys: versions, states and destruction. */
export function registerKeyLifecycleRoutes(
  app: FastifyInstance,
  guards: Guards,
  services: ServiceGate,
): void {
  registerRotation(app, guards, services);
  registerStates(app, guards, services);
  registerDeletion(app, guards, services);
  registerVersionDestruction(app, guards, services);
}

function registerRotation(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const rotation = describe({
    id: 'rotateKey',
    tag: 'keys',
    summary: 'Make a new version of a key',
    description:
      'Older versions do not change. With `expected_version`, nothing changes unless that is the current version.',
    access: keyAccess('kms:rotate_key'),
    params: keyParamsSchema,
    query: rotateQuery,
    headers: ifMatchHeaders,
    answers: CHANGED,
    refusals: [...CHANGE_REFUSALS, 'key_disabled', 'key_versions_exhausted'],
    examples: {
      rotate: { params: EXAMPLE_PARAMS, status: 200 },
      once: {
        summary: 'Of concurrent requests, one creates a version',
        params: EXAMPLE_PARAMS,
        query: { expected_version: '1' },
        status: 200,
      },
    },
  });
  app.post<BodyRoute>(
    '/v1/keys/:name/rotate',
    { onRequest: guards.keyInPath('kms:rotate_key'), config: rotation },
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
}

function registerStates(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  for (const [action, change, summary, status] of [
    ['enable', enableKey, 'Enable a key', 200],
    ['disable', disableKey, 'Disable a key until it is enabled again', 200],
    ['restore', restoreKey, 'Cancel the deletion of a key, which is then disabled', 409],
  ] as const)
    app.post<BodyRoute>(
      `/v1/keys/:name/${action}`,
      {
        onRequest: guards.keyInPath('kms:manage_key'),
        config: describe({
          id: `${action}Key`,
          tag: 'keys',
          summary,
          access: keyAccess('kms:manage_key'),
          params: keyParamsSchema,
          headers: ifMatchHeaders,
          answers: CHANGED,
          refusals: [
            ...CHANGE_REFUSALS,
            ...(action === 'restore' ? ['key_not_pending_deletion' as const] : []),
          ],
          examples: {
            [action]: { params: EXAMPLE_PARAMS, status },
            another: { params: { name: 'none-dek' }, status: 404 },
          },
        }),
      },
      async (request, reply) => {
        validate(noQuery, request.query, 'query');
        const asked = keyRequestOf(request);
        refuseBody(request);
        return sendKey(reply, await change(services().keys, asked, callerOf(request)));
      },
    );
}

function registerDeletion(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const deletion = describe({
    id: 'deleteKey',
    tag: 'keys',
    summary: 'Schedule the deletion of a key, or destroy it now',
    access: keyAccess('kms:destroy_key'),
    params: keyParamsSchema,
    query: deleteQuery,
    headers: ifMatchHeaders,
    answers: {
      200: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
      202: {
        description: 'The key is destroyed at `deletion_at`, unless it is restored before',
        schema: keyInfoSchema,
        headers: KEY_HEADERS,
      },
    },
    refusals: [...CHANGE_REFUSALS, 'rate_limited'],
    examples: {
      schedule: { params: EXAMPLE_PARAMS, query: { pending_days: '30' }, status: 202 },
      now: { params: EXAMPLE_PARAMS, query: { pending_days: '0', confirm: 'project-a-dek' }, status: 200 },
      unconfirmed: { params: EXAMPLE_PARAMS, query: { pending_days: '0' }, status: 400 },
    },
  });
  app.delete<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:destroy_key'), config: deletion },
    async (request, reply) => {
      const { pending_days: pendingDays, confirm } = validate(deleteQuery, request.query, 'query');
      const asked = keyRequestOf(request);
      refuseBody(request);
      if (pendingDays === 0) {
        requireConfirmation(confirm, asked.name);
        services().limits.takeDestruction(subjectOf(request));
        return sendKey(reply, await destroyKey(services().keys, asked, callerOf(request)));
      }
      if (confirm !== undefined) throw invalidConfirmation('is only for pending_days=0');
      services().limits.takeDestruction(subjectOf(request));
      const key = await scheduleDeletion(services().keys, { ...asked, pendingDays }, callerOf(request));
      return sendKey(reply.code(202), key);
    },
  );
}

function registerVersionDestruction(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const versionDestruction = describe({
    id: 'destroyKeyVersion',
    tag: 'keys',
    summary: 'Destroy an older version of a key',
    access: keyAccess('kms:destroy_key'),
    params: versionParamsSchema,
    query: confirmQuery,
    headers: ifMatchHeaders,
    answers: {
      200: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
    },
    refusals: [...CHANGE_REFUSALS, 'key_version_current', 'key_version_destroyed', 'rate_limited'],
    examples: {
      current: {
        summary: 'Refused, because it is the current version',
        params: { name: 'project-a-dek', version: '1' },
        query: { confirm: 'project-a-dek' },
        status: 409,
      },
    },
  });
  app.delete<BodyRoute>(
    '/v1/keys/:name/versions/:version',
    { onRequest: guards.keyInPath('kms:destroy_key'), config: versionDestruction },
    async (request, reply) => {
      const { confirm } = validate(confirmQuery, request.query, 'query');
      const { name, version } = validate(versionParamsSchema, request.params, 'params');
      refuseBody(request);
      requireConfirmation(confirm, name);
      services().limits.takeDestruction(subjectOf(request));
      const asked = { name, version, ifMatch: ifMatchOf(request) };
      return sendKey(reply, await destroyVersion(services().keys, asked, callerOf(request)));
    },
  );
}

/** An irreversible action needs the name twice. */
function requireConfirmation(confirm: string | undefined, name: string): void {
  if (confirm !== name) throw invalidConfirmation(CONFIRM_FAULT);
}

function invalidConfirmation(message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: 'query.confirm', message }] });
}
