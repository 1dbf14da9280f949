import { requireKey } from '@bundoc/shared/contract/grants';
import { validate } from '@bundoc/shared/http/validate';
import { createKey } from '../keys/create-key.ts';
import { updateKey } from '../keys/key-lifecycle.ts';
import { listLeases } from '../keys/leases.ts';
import { listKeys, readKey } from '../keys/read-keys.ts';
import type { Guards } from './guard.ts';
import { ifMatchOf, sendKey } from './if-match.ts';
import { requireStorageOrAdministrator } from './key-requests.ts';
import { CREATION, createHeaders, LEASES, LISTING, READING, UPDATE } from './keys.openapi.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import type { AddRoute } from './route.ts';

/** Creating and reading keys, and their policies. */
export function registerKeyRoutes(add: AddRoute, guards: Guards): void {
  registerCreation(add, guards);
  registerReading(add, guards);
  add('PATCH /v1/keys/:name', guards.keyInPath('kms:manage_key'), UPDATE, async (asked) => {
    const { params, body: update, services, caller, request, reply } = asked;
    const wanted = { name: params.name, ifMatch: ifMatchOf(request), update };
    return sendKey(reply, await updateKey(services.keys, wanted, caller));
  });
}

function registerCreation(add: AddRoute, guards: Guards): void {
  add(
    'POST /v1/keys',
    guards.scope('kms:create_key'),
    CREATION,
    async ({ body, services: { keys, limits }, claims, subject, caller, request, reply }) => {
      // The name is in the body, so this is the earliest check. The store has not been read yet.
      requireKey(claims, body.name);
      if (body.storage !== undefined) requireStorageOrAdministrator(claims, body.generation);
      const key = validate(createHeaders, request.headers, 'headers')['idempotency-key'];
      const idempotency = key === undefined ? undefined : { root: subject, subject: claims.sub, key };
      limits.take('creation', subject);
      const made = await createKey(keys, body, caller, idempotency);
      return sendKey(reply.header('location', `/v1/keys/${made.name}`), made);
    },
    OF_ONE,
  );
}

function registerReading(add: AddRoute, guards: Guards): void {
  const guard = guards.keyInPath('kms:read_key');
  add(
    'GET /v1/keys',
    guards.scope('kms:read_key'),
    LISTING,
    ({ query: { limit, cursor }, services: { keys, limits }, claims, subject, caller }) => {
      limits.takeRead(subject, limit);
      return listKeys(keys, claims.keys, { limit, after: cursor }, caller);
    },
    OF_PAGE,
  );
  add(
    'GET /v1/keys/:name',
    guard,
    READING,
    async ({ params, services: { keys, limits }, subject, caller, reply }) => {
      limits.takeRead(subject);
      return sendKey(reply, await readKey(keys, params.name, caller));
    },
    OF_ONE,
  );
  add(
    'GET /v1/keys/:name/leases',
    guard,
    LEASES,
    ({ params, query: { limit, cursor: before }, services: { keys, limits }, subject, caller }) => {
      limits.takeRead(subject, limit);
      return listLeases(keys, params.name, { limit, before }, caller);
    },
    OF_PAGE,
  );
}
