import { AppError } from '@bundoc/shared/contract/app-error';
import { validate } from '@bundoc/shared/http/validate';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion } from '../keys/key-lifecycle.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { ifMatchHeaders, ifMatchOf, sendKey } from './if-match.ts';
import {
  CHANGED,
  CONFIRM_FAULT,
  confirmQuery,
  DELETION,
  deleteQuery,
  EXAMPLE_PARAMS,
  ROTATION,
  rotateQuery,
  VERSION_DESTRUCTION,
  versionParamsSchema,
} from './key-lifecycle.openapi.ts';
import {
  type BodyRoute,
  CHANGE_REFUSALS,
  keyAccess,
  keyParamsSchema,
  keyRequestOf,
  refuseBody,
} from './key-requests.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

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
  app.post<BodyRoute>(
    '/v1/keys/:name/rotate',
    { onRequest: guards.keyInPath('kms:rotate_key'), config: ROTATION },
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
  app.delete<BodyRoute>(
    '/v1/keys/:name',
    { onRequest: guards.keyInPath('kms:destroy_key'), config: DELETION },
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
  app.delete<BodyRoute>(
    '/v1/keys/:name/versions/:version',
    { onRequest: guards.keyInPath('kms:destroy_key'), config: VERSION_DESTRUCTION },
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
