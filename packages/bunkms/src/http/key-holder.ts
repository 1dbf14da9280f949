import { defined } from '@bundoc/shared/contract/defined';
import { destroyReceiptSchema, keyInfoSchema } from '@bundoc/shared/contract/keys';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import {
  claimKeySchema,
  deletionIntentSchema,
  holderOfKeySchema,
  intendDeletionSchema,
  moveOfKeySchema,
  offerKeySchema,
  shredKeySchema,
  takeOverKeySchema,
} from '@bundoc/shared/contract/storages';
import type { Scope } from '@bundoc/shared/contract/tokens';
import { claimsOf, type Guard } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody, type RouteAnswer, type RouteExample } from '@bundoc/shared/openapi/description';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { noQuery } from '../http/query.ts';
import { acceptKey, claimKey, offerKey, takeOverKey, withdrawKey } from '../keys/key-holder.ts';
import { finishDeletion, intendDeletion, shredKey } from '../keys/shred-key.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { sendKey } from './if-match.ts';
import {
  type BodyRoute,
  EXAMPLE_STORAGE,
  HOLDER_REFUSALS,
  KEY_HEADERS,
  KEY_REFUSALS,
  keyAccess,
  keyParamsSchema,
  requireStorageOrAdministrator,
} from './key-requests.ts';
import type { ServiceGate } from './services.ts';

const EXAMPLE_PARAMS = { name: 'project-a-dek' };
const EXAMPLE_MOVE = '5e4d3c2b-1a0f-4e7d-9c5a-3f1b6e4d2c9a';
const EXAMPLE_RECEIPT = { seq: 42, hash: 'ab'.repeat(32) };
const KEY = { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS };
/** Refusals of all requests of a storage about a key. */
const REFUSALS = [...KEY_REFUSALS, ...HOLDER_REFUSALS, 'disk_full'] as const satisfies readonly ProblemCode[];

interface Action<S extends z.ZodType> {
  /** The last segment of the path. */
  readonly action: string;
  readonly id: string;
  readonly summary: string;
  readonly description?: string;
  readonly scope: Scope;
  /** Replaces the default guard for service tokens with the scope and the key. */
  readonly guard?: Guard;
  readonly body: S;
  readonly answer: RouteAnswer;
  readonly refusals: readonly ProblemCode[];
  readonly examples: Readonly<Record<string, Omit<RouteExample, 'params'>>>;
  readonly act: (
    wanted: z.output<S> & { readonly name: string },
    request: FastifyRequest,
    reply: FastifyReply,
  ) => Promise<unknown>;
}

/** The holder of a key, and the deletion that the holder requests. */
export function registerKeyHolderRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerHolding(app, guards, services);
  registerMoves(app, guards, services);
  registerDeletion(app, guards, services);
}

function registerHolding(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  post(app, guards, {
    action: 'claim',
    id: 'claimKey',
    summary: 'Make a storage the holder of a key without a holder',
    description:
      'With `generation`, which must be the current one, only for service tokens. Without it, the scope `kms:manage_key` is needed, which also allows claiming a key with an unknown holder.',
    scope: 'kms:create_key',
    guard: guards.keyInPathWithAny(['kms:create_key', 'kms:manage_key']),
    body: claimKeySchema,
    answer: KEY,
    refusals: REFUSALS,
    examples: {
      byAdministrator: { body: { storage: EXAMPLE_STORAGE.storage }, status: 200 },
      superseded: { body: EXAMPLE_STORAGE, status: 409 },
    },
    act: async (wanted, request, reply) => {
      const isAdministrator = requireStorageOrAdministrator(claimsOf(request), wanted.generation);
      return sendKey(reply, await claimKey(services().keys, wanted, isAdministrator, callerOf(request)));
    },
  });
  post(app, guards, {
    action: 'take-over',
    id: 'takeOverKey',
    summary: 'Make a storage the holder of a key, whatever its holder',
    description:
      'Refused with `until` while any other storage may use the key, unless `force` is true. Refused with `key_deletion_intended` while the holder wants the key shredded, even with `force`.',
    scope: 'kms:manage_key',
    guard: guards.keyInPath('kms:manage_key'),
    body: takeOverKeySchema,
    answer: KEY,
    refusals: [...KEY_REFUSALS, 'lease_live', 'key_deletion_intended', 'disk_full'],
    examples: { takeOver: { body: { storage: EXAMPLE_STORAGE.storage }, status: 200 } },
    act: async (wanted, request, reply) =>
      sendKey(reply, await takeOverKey(services().keys, wanted, callerOf(request))),
  });
}

function registerMoves(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  post(app, guards, {
    action: 'offer',
    id: 'offerKey',
    summary: 'Offer a key to another storage, as its holder',
    description: 'Replaces an earlier offer.',
    scope: 'kms:create_key',
    body: offerKeySchema,
    answer: KEY,
    refusals: [...REFUSALS, 'key_deletion_intended'],
    examples: {
      superseded: {
        body: { ...EXAMPLE_STORAGE, to: '9a2c4d6e-1b3f-4a5c-8d7e-0f1a2b3c4d5e', move: EXAMPLE_MOVE },
        status: 409,
      },
    },
    act: async (wanted, request, reply) =>
      sendKey(reply, await offerKey(services().keys, wanted, callerOf(request))),
  });
  post(app, guards, {
    action: 'withdraw',
    id: 'withdrawKey',
    summary: 'Withdraw the offer of a move, as the holder',
    description: 'After the answer, that offer cannot be accepted. The offer of another move stays.',
    scope: 'kms:create_key',
    body: moveOfKeySchema,
    answer: KEY,
    refusals: REFUSALS,
    examples: { superseded: { body: { ...EXAMPLE_STORAGE, move: EXAMPLE_MOVE }, status: 409 } },
    act: async (wanted, request, reply) =>
      sendKey(reply, await withdrawKey(services().keys, wanted, callerOf(request))),
  });
  post(app, guards, {
    action: 'accept',
    id: 'acceptKey',
    summary: 'Become the holder of a key that was offered in this move',
    scope: 'kms:create_key',
    body: moveOfKeySchema,
    answer: KEY,
    refusals: [...KEY_REFUSALS, 'storage_superseded', 'key_not_offered', 'integrity_error', 'disk_full'],
    examples: { superseded: { body: { ...EXAMPLE_STORAGE, move: EXAMPLE_MOVE }, status: 409 } },
    act: async (wanted, request, reply) =>
      sendKey(reply, await acceptKey(services().keys, wanted, callerOf(request))),
  });
}

function registerDeletion(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  post(app, guards, {
    action: 'deletion-intent',
    id: 'intendDeletion',
    summary: 'Record that a key will be shredded, as its holder',
    description:
      'The key is no longer released. Its destruction must name `receipt`, which is valid until the key changes again. It counts as a destruction by `client`.',
    scope: 'kms:shred_key',
    body: intendDeletionSchema,
    answer: { description: 'The intent', schema: deletionIntentSchema },
    refusals: [...REFUSALS, 'rate_limited'],
    examples: { superseded: { body: EXAMPLE_STORAGE, status: 409 } },
    act: ({ client, ...wanted }, request) => {
      services().limits.takeShred(subjectOf(request), client);
      return intendDeletion(services().keys, wanted, callerOf(request));
    },
  });
  post(app, guards, {
    action: 'shred',
    id: 'shredKey',
    summary: 'Destroy a key whose deletion is intended, as its holder',
    description:
      'Refused with `precondition_failed` unless `receipt` is that of the latest change of the key.',
    scope: 'kms:shred_key',
    body: shredKeySchema,
    answer: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
    refusals: [...REFUSALS, 'precondition_failed'],
    examples: { superseded: { body: { ...EXAMPLE_STORAGE, receipt: EXAMPLE_RECEIPT }, status: 409 } },
    act: async (wanted, request, reply) =>
      sendKey(reply, await shredKey(services().keys, wanted, callerOf(request))),
  });
  post(app, guards, {
    action: 'content-removed',
    id: 'finishDeletion',
    summary: 'Report that the content of a shredded key is removed',
    description:
      'The key has no holder afterwards. Refused with `precondition_failed` unless it was shredded.',
    scope: 'kms:shred_key',
    body: holderOfKeySchema,
    answer: KEY,
    refusals: [...REFUSALS, 'precondition_failed'],
    examples: { superseded: { body: EXAMPLE_STORAGE, status: 409 } },
    act: async (wanted, request, reply) =>
      sendKey(reply, await finishDeletion(services().keys, wanted, callerOf(request))),
  });
}

function post<S extends z.ZodType>(app: FastifyInstance, guards: Guards, route: Action<S>): void {
  app.post<BodyRoute>(
    `/v1/keys/:name/${route.action}`,
    {
      onRequest: route.guard ?? guards.serviceForKeyInPath(route.scope),
      config: describe({
        id: route.id,
        tag: 'storages',
        summary: route.summary,
        ...defined({ description: route.description }),
        access: keyAccess(route.scope, route.guard === undefined),
        params: keyParamsSchema,
        body: jsonBody(route.body),
        answers: { 200: route.answer },
        refusals: route.refusals,
        examples: Object.fromEntries(
          Object.entries(route.examples).map(([name, one]) => [name, { params: EXAMPLE_PARAMS, ...one }]),
        ),
      }),
    },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const { name } = validate(keyParamsSchema, request.params, 'params');
      const wanted = validate(route.body, parseJsonObject(request.body).value, 'body');
      return route.act({ ...(wanted as z.output<S> & object), name }, request, reply);
    },
  );
}
