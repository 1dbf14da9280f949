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
import { jsonBody } from '@bundoc/shared/openapi/description';
import type { z } from 'zod';
import {
  EXAMPLE_STORAGE,
  HOLDER_REFUSALS,
  KEY_HEADERS,
  KEY_REFUSALS,
  keyAccess,
  keyParamsSchema,
} from './key-requests.ts';
import type { JsonRoute } from './route.ts';

const EXAMPLE_PARAMS = { name: 'project-a-dek' };
const EXAMPLE_MOVE = '5e4d3c2b-1a0f-4e7d-9c5a-3f1b6e4d2c9a';
const EXAMPLE_RECEIPT = { seq: 42, hash: 'ab'.repeat(32) };
const ANSWER = { 200: { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS } };
const OF_KEY = { tag: 'storages', params: keyParamsSchema } as const;
/** Refusals of all requests of a storage about a key. */
const REFUSALS = [...KEY_REFUSALS, ...HOLDER_REFUSALS, 'disk_full'] as const satisfies readonly ProblemCode[];

const superseded = (body: object) => ({ superseded: { params: EXAMPLE_PARAMS, body, status: 409 } });

/** A request of the storage that holds a key. @param example of a body, from a former generation. */
function ofStorage<S extends z.ZodType>(scope: Scope, schema: S, example: object) {
  return {
    ...OF_KEY,
    access: keyAccess(scope, true),
    body: jsonBody(schema),
    answers: ANSWER,
    refusals: REFUSALS,
    examples: superseded(example),
  };
}

export const CLAIM = {
  ...OF_KEY,
  id: 'claimKey',
  summary: 'Make a storage the holder of a key without a holder',
  description:
    'With `generation`, which must be the current one, only for service tokens. Without it, the scope `kms:manage_key` is needed, which also allows claiming a key with an unknown holder.',
  access: keyAccess('kms:create_key'),
  body: jsonBody(claimKeySchema),
  answers: ANSWER,
  refusals: REFUSALS,
  examples: {
    byAdministrator: { params: EXAMPLE_PARAMS, body: { storage: EXAMPLE_STORAGE.storage }, status: 200 },
    ...superseded(EXAMPLE_STORAGE),
  },
} satisfies JsonRoute;

export const TAKE_OVER = {
  ...OF_KEY,
  id: 'takeOverKey',
  summary: 'Make a storage the holder of a key, whatever its holder',
  description:
    'Refused with `until` while any other storage may use the key, unless `force` is true. Refused with `key_deletion_intended` while the holder wants the key shredded, even with `force`.',
  access: keyAccess('kms:manage_key'),
  body: jsonBody(takeOverKeySchema),
  answers: ANSWER,
  refusals: [...KEY_REFUSALS, 'lease_live', 'key_deletion_intended', 'disk_full'],
  examples: {
    takeOver: { params: EXAMPLE_PARAMS, body: { storage: EXAMPLE_STORAGE.storage }, status: 200 },
  },
} satisfies JsonRoute;

export const OFFER = {
  ...ofStorage('kms:create_key', offerKeySchema, {
    ...EXAMPLE_STORAGE,
    to: '9a2c4d6e-1b3f-4a5c-8d7e-0f1a2b3c4d5e',
    move: EXAMPLE_MOVE,
  }),
  id: 'offerKey',
  summary: 'Offer a key to another storage, as its holder',
  description: 'Replaces an earlier offer.',
  refusals: [...REFUSALS, 'key_deletion_intended'],
} satisfies JsonRoute;

export const WITHDRAWAL = {
  ...ofStorage('kms:create_key', moveOfKeySchema, { ...EXAMPLE_STORAGE, move: EXAMPLE_MOVE }),
  id: 'withdrawKey',
  summary: 'Withdraw the offer of a move, as the holder',
  description: 'After the answer, that offer cannot be accepted. The offer of another move stays.',
} satisfies JsonRoute;

export const ACCEPTANCE = {
  ...ofStorage('kms:create_key', moveOfKeySchema, { ...EXAMPLE_STORAGE, move: EXAMPLE_MOVE }),
  id: 'acceptKey',
  summary: 'Become the holder of a key that was offered in this move',
  refusals: [...KEY_REFUSALS, 'storage_superseded', 'key_not_offered', 'integrity_error', 'disk_full'],
} satisfies JsonRoute;

export const DELETION_INTENT = {
  ...ofStorage('kms:shred_key', intendDeletionSchema, EXAMPLE_STORAGE),
  id: 'intendDeletion',
  summary: 'Record that a key will be shredded, as its holder',
  description:
    'The key is no longer released. Its destruction must name `receipt`, which is valid until the key changes again. It counts as a destruction by `client`.',
  answers: { 200: { description: 'The intent', schema: deletionIntentSchema } },
  refusals: [...REFUSALS, 'rate_limited'],
} satisfies JsonRoute;

export const SHREDDING = {
  ...ofStorage('kms:shred_key', shredKeySchema, { ...EXAMPLE_STORAGE, receipt: EXAMPLE_RECEIPT }),
  id: 'shredKey',
  summary: 'Destroy a key whose deletion is intended, as its holder',
  description: 'Refused with `precondition_failed` unless `receipt` is that of the latest change of the key.',
  answers: {
    200: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
  },
  refusals: [...REFUSALS, 'precondition_failed'],
} satisfies JsonRoute;

export const CONTENT_REMOVED = {
  ...ofStorage('kms:shred_key', holderOfKeySchema, EXAMPLE_STORAGE),
  id: 'finishDeletion',
  summary: 'Report that the content of a shredded key is removed',
  description: 'The key has no holder afterwards. Refused with `precondition_failed` unless it was shredded.',
  refusals: [...REFUSALS, 'precondition_failed'],
} satisfies JsonRoute;
