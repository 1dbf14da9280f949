import { AppError } from '@bundoc/shared/contract/app-error';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion } from '../keys/key-lifecycle.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import type { Guards } from './guard.ts';
import { ifMatchOf, sendKey } from './if-match.ts';
import {
  CONFIRM_FAULT,
  DELETION,
  ROTATION,
  stateChange,
  VERSION_DESTRUCTION,
} from './key-lifecycle.openapi.ts';
import type { AddRoute } from './route.ts';

/** The life cycle of keys: versions, states and destruction. */
export function registerKeyLifecycleRoutes(add: AddRoute, guards: Guards): void {
  add('POST /v1/keys/:name/rotate', guards.keyInPath('kms:rotate_key'), ROTATION, async (asked) => {
    const { params, query, services, caller, request, reply } = asked;
    const { expected_version: expectedVersion } = query;
    const wanted = { name: params.name, ifMatch: ifMatchOf(request), expectedVersion };
    return sendKey(reply, await rotateKey(services.keys, wanted, caller));
  });
  registerStates(add, guards);
  registerDestruction(add, guards);
}

function registerStates(add: AddRoute, guards: Guards): void {
  for (const [action, change, summary, status] of [
    ['enable', enableKey, 'Enable a key', 200],
    ['disable', disableKey, 'Disable a key until it is enabled again', 200],
    ['restore', restoreKey, 'Cancel the deletion of a key, which is then disabled', 409],
  ] as const)
    add(
      `POST /v1/keys/:name/${action}`,
      guards.keyInPath('kms:manage_key'),
      stateChange(action, summary, status),
      async ({ params, services, caller, request, reply }) => {
        const wanted = { name: params.name, ifMatch: ifMatchOf(request) };
        return sendKey(reply, await change(services.keys, wanted, caller));
      },
    );
}

function registerDestruction(add: AddRoute, guards: Guards): void {
  const guard = guards.keyInPath('kms:destroy_key');
  add('DELETE /v1/keys/:name', guard, DELETION, async (asked) => {
    const { params, query, services, subject, caller, request, reply } = asked;
    const { pending_days: pendingDays, confirm } = query;
    const wanted = { name: params.name, ifMatch: ifMatchOf(request) };
    if (pendingDays === 0) requireConfirmation(confirm, wanted.name);
    else if (confirm !== undefined) throw invalidConfirmation('is only for pending_days=0');
    services.limits.take('destruction', subject);
    if (pendingDays === 0) return sendKey(reply, await destroyKey(services.keys, wanted, caller));
    const key = await scheduleDeletion(services.keys, { ...wanted, pendingDays }, caller);
    return sendKey(reply.code(202), key);
  });
  add('DELETE /v1/keys/:name/versions/:version', guard, VERSION_DESTRUCTION, async (asked) => {
    const { params, query, services, subject, caller, request, reply } = asked;
    requireConfirmation(query.confirm, params.name);
    services.limits.take('destruction', subject);
    const wanted = { ...params, ifMatch: ifMatchOf(request) };
    return sendKey(reply, await destroyVersion(services.keys, wanted, caller));
  });
}

/** An irreversible action needs the name twice. */
function requireConfirmation(confirm: string | undefined, name: string): void {
  if (confirm !== name) throw invalidConfirmation(CONFIRM_FAULT);
}

function invalidConfirmation(message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: 'query.confirm', message }] });
}
